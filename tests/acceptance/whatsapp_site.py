"""Real servers with a fake Evolution API and a fake model around them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from tests.chat_host import token
from tests.fakes.evolution import FakeEvolution
from tests.fakes.model import FakeModel
from tests.postgres import run_sql
from tests.programs import Program, free_port, program
from tests.waiting import until

HOOK_SECRET = "a-secret-of-the-hook"
JID = "5511988887777@s.whatsapp.net"


class WhatsAppSite:
    """Servers on one database; the first gets Evolution's webhooks."""

    def __init__(
        self, database_url: str, evolution: FakeEvolution, model: FakeModel
    ) -> None:
        self.database_url = database_url
        self.evolution = evolution
        self.model = model
        self.servers: list[Program] = []

    def environment(self, port: int, **changes: str) -> dict[str, str]:
        """Make the variables of a server."""
        return {
            "VIVA_DATABASE_URL": self.database_url,
            "VIVA_PORT": str(port),
            "VIVA_MODEL_URL": str(self.model.url),
            "VIVA_MODEL_NAME": "fake",
            "VIVA_EVOLUTION_URL": self.evolution.url,
            "VIVA_EVOLUTION_API_KEY": self.evolution.api_key,
            "VIVA_WEBHOOK_SECRET": HOOK_SECRET,
            "VIVA_WHATSAPP_DEBOUNCE_SECONDS": "0.2",
            **{name.upper(): text for name, text in changes.items()},
        }

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return run_sql(self.database_url, sql)

    async def answered(self, times: int = 1, within_seconds: float = 30.0) -> None:
        """Wait until so many texts were sent."""
        await until(
            lambda: len(self.evolution.sent) >= times, within_seconds=within_seconds
        )

    async def trace(self, message_id: str, *, scope: str | None = "admin") -> Any:
        """Ask the first server for the way of a message; gives status and body."""
        url = f"{self.servers[0].origin}/api/v1/whatsapp/trace/{message_id}"
        headers = {"Authorization": f"Bearer {token(scope=scope)}"} if scope else {}
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers) as response,
        ):
            return response.status, json.loads(await response.read())


@asynccontextmanager
async def whatsapp_site(
    database_url: str, model: FakeModel, *, servers: int = 1, **changes: str
) -> AsyncIterator[WhatsAppSite]:
    """Run servers with a webhook at the first; `changes` are variables."""
    async with FakeEvolution() as evolution, AsyncExitStack() as stack:
        site = WhatsAppSite(database_url, evolution, model)
        for _ in range(servers):
            port = free_port()
            environment = site.environment(port, **changes)
            arguments = ("-m", "viva_server", "serve")
            running = program(*arguments, port=port, environment=environment)
            site.servers.append(await stack.enter_async_context(running))
        hook = f"{site.servers[0].origin}/api/v1/webhook/evolution"
        evolution.add_webhook(
            hook, headers={"Authorization": f"Bearer {HOOK_SECRET}"}, by_events=True
        )
        yield site
        await asyncio.sleep(0)
