"""SIGTERM under webhooks: who got 200 has a row, whatever the commit did."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import threading
from contextlib import closing

import psycopg2
import pytest

from tests.faults.fleet import Fleet
from tests.postgres import run_sql
from tests.waiting import until

_WEBHOOK = "/api/v1/webhook/evolution"


class Sender:
    """Posts events on one connection until the server is gone; notes the statuses."""

    def __init__(self, name: str, event: str) -> None:
        self.name = name
        self.event = event
        self.statuses: dict[str, int] = {}
        self._ends = threading.Event()

    def run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.suppress(OSError, http.client.HTTPException):
            for number in range(100_000):
                if self._ends.is_set():
                    break
                self._post(connection, f"{self.name}-{number}")
        connection.close()

    def _post(self, connection: http.client.HTTPConnection, key: str) -> None:
        data = {"key": {"id": key}, "type": 14}
        body = {"event": self.event, "instance": "loja", "data": data}
        connection.request("POST", _WEBHOOK, json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        self.statuses[key] = answer.status

    def stop(self) -> None:
        self._ends.set()


@pytest.mark.parametrize("is_held", [False, True])
async def test_each_200_has_a_row_when_the_server_is_told_to_stop(
    fleet: Fleet, is_held: bool
) -> None:
    """With `is_held` the commits hang from before the signal to behind the end."""
    (server,) = await fleet.start(1, webhook_open="1")
    events = ["messages.upsert", "labels.edit", "call"]
    senders = [Sender(f"s{n}", events[n % len(events)]) for n in range(6)]
    running = [asyncio.to_thread(sender.run, server.port) for sender in senders]
    all_ended = asyncio.gather(*running)
    await until(lambda: all(len(sender.statuses) > 20 for sender in senders))
    with closing(psycopg2.connect(fleet.dsn)) as holder, holder.cursor() as cursor:
        if is_held:
            cursor.execute("LOCK TABLE viva.inbox IN ACCESS EXCLUSIVE MODE")
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        for sender in senders:
            sender.stop()
        await all_ended
    statuses = {k: v for sender in senders for k, v in sender.statuses.items()}
    assert set(statuses.values()) <= {200, 503}
    said = {key for key, status in statuses.items() if status == 200}
    query = "SELECT COALESCE(body->'data'->'key'->>'id', '') FROM viva.inbox"
    stored = {key for (key,) in run_sql(fleet.dsn, query)}
    assert said <= stored, sorted(said - stored)[:5]
    assert len(said) > 100
