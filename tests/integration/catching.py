"""A catch-up and its surroundings: an inbox, and a fake Evolution with its store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yarl import URL

from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution
from tests.postgres import run_sql
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.whatsapp.evolution.catch_up import CatchUp
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.inbox import Inbox

SECRET = "a-webhook-secret"
HOUR = 3600.0


class Room:
    """A catch-up with its surroundings."""

    def __init__(
        self,
        database: Database,
        database_url: str,
        inbox: Inbox,
        evolution: FakeEvolution,
        client: EvolutionClient,
    ) -> None:
        self.evolution = evolution
        self._database = database
        self._url = database_url
        self.inbox = inbox
        self._client = client

    def catch_up(
        self, *, secret: str = SECRET, is_open: bool = False, **options: Any
    ) -> CatchUp:
        config = Config(
            webhook_secret=(secret,) if secret else (),
            webhook_open=is_open,
            evolution_url=URL(self.evolution.url),
            evolution_api_key=self.evolution.api_key,
        )
        return CatchUp(config, self._database, self.inbox, self._client, **options)

    async def deliver(self, row: dict[str, Any], instance: str = INSTANCE) -> None:
        """Deliver a stored message as its webhook would."""
        body = {"event": "messages.upsert", "instance": instance, "data": row}
        await self.inbox.add(make_delivery("", "", {}, body, trusted=True))

    async def deliver_first(self, instance: str = INSTANCE) -> None:
        """Make an instance known, by a message that Evolution does not have."""
        key = {"remoteJid": PERSON, "fromMe": False, "id": f"FIRST-{instance}"}
        message = {"conversation": "primeira"}
        await self.deliver({"key": key, "message": message}, instance)

    def rows(self, columns: str = "form->>'text'") -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM viva.inbox ORDER BY id"
        return run_sql(self._url, query)

    def texts(self) -> list[str]:
        return [text for (text,) in self.rows()]

    def age(self, hours: float) -> None:
        """Let all deliveries have come so long ago."""
        change = f"received_at = received_at - interval '{hours} hours'"
        run_sql(self._url, f"UPDATE viva.inbox SET {change} RETURNING id")


@contextmanager
def running(catch_up: CatchUp) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(catch_up.run())
    try:
        yield task
    finally:
        task.cancel()


def connection(state: str, instance: str = INSTANCE) -> Delivery:
    body = {"event": "connection.update", "instance": instance}
    data = {"instance": instance, "state": state}
    return make_delivery("", "", {}, {**body, "data": data}, trusted=True)
