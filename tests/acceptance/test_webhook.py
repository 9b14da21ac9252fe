"""What Evolution gets answered, and what is stored of what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.webhook_server import WebhookClient, webhook_server
from tests.postgres import run_sql
from viva_server.config import Config
from viva_server.store.db import Database


@pytest.fixture
async def door(database: Database) -> AsyncIterator[WebhookClient]:
    async with webhook_server(database, Config()) as client:
        yield client


async def test_the_dummy_check_is_answered_as_received(door: WebhookClient) -> None:
    body = {"data": {"key": "dummy"}}
    status, answer, _ = await door.post("/messages-upsert", body)
    assert (status, answer) == (
        200,
        {
            "status": "received",
            "processed": True,
            "event": "messages.upsert",
            "duplicate": False,
        },
    )


async def test_fifty_deliveries_at_once_are_one_row(
    door: WebhookClient, database_url: str
) -> None:
    body = {"event": "messages.upsert", "instance": "a", "data": {"key": {"id": "X1"}}}
    answers = await asyncio.gather(*(door.post("", body) for _ in range(50)))
    assert [status for status, _, _ in answers] == [200] * 50
    assert sum(not answer["duplicate"] for _, answer, _ in answers) == 1
    rows = run_sql(database_url, "SELECT deliveries FROM viva.inbox")
    assert rows == [(50,)]
