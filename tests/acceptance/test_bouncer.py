"""What is prepared for a connection runs whatever PgBouncer puts behind it."""

from __future__ import annotations

import asyncio

import pytest

from tests.acceptance.bouncer import pgbouncer
from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.inbox import Inbox


def call(number: int) -> Delivery:
    body = {"event": "call", "instance": "a", "data": number}
    return make_delivery("", "", {}, body, trusted=True)


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_webhooks_are_stored_in_any_mode(database_url: str, mode: str) -> None:
    with pgbouncer(database_url, mode) as url:
        databases = [Database(url, pool_size=2) for _ in range(3)]
        inboxes = [Inbox(database) for database in databases]
        try:
            # Side by side, so that the sessions behind them change hands.
            for first in range(0, 60, 6):
                adding = [
                    inboxes[number % 3].add(call(number))
                    for number in range(first, first + 6)
                ]
                assert await asyncio.gather(*adding) == [True] * 6
        finally:
            for inbox, database in zip(inboxes, databases, strict=True):
                await inbox.close()
                await database.close()
    assert run_sql(database_url, "SELECT count(*) FROM viva.inbox") == [(60,)]
