"""Whole servers in the test's process, a fake Evolution API, replies at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from yarl import URL

from tests.chat_host import chat_host
from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.responders import Conversation, Responder


class Answers:
    """A responder that numbers its answers; errors in `fails` come first."""

    def __init__(self) -> None:
        self.seen: list[Conversation] = []
        self.fails: list[BaseException] = []
        self.text = ""
        self.is_silent = False
        self.is_endless = False

    async def __call__(self, conversation: Conversation) -> AsyncGenerator[str, None]:
        self.seen.append(conversation)
        number = len(self.seen)
        if not self.is_silent:
            yield self.text or f"Resposta {number}"
        while self.is_endless:
            await asyncio.sleep(0.05)
            yield "and so on "
        if self.fails:
            raise self.fails.pop(0)

    @property
    def questions(self) -> list[str]:
        """The last message of each conversation."""
        return [each.messages[-1].content for each in self.seen]


class Lab:
    """Servers on one database, which all get Evolution's webhooks."""

    def __init__(
        self, database_url: str, evolution: FakeEvolution, answers: Answers
    ) -> None:
        self.database_url = database_url
        self.evolution = evolution
        self.answers = answers

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return run_sql(self.database_url, sql)

    def receive(self, text: str, **message: Any) -> str:
        """Let a person write; gives the message's id."""
        return self.evolution.receive(text, **message)

    def upsert(self, row: dict[str, Any], event: str = "messages.upsert") -> None:
        """Deliver an event as it is given."""
        self.evolution.webhooks.emit(event, INSTANCE, row)

    def why_not(self, message_id: str) -> str | None:
        """Say why a message is not answered."""
        found = self.rows("SELECT message_id, why_not FROM viva.whatsapp_messages")
        why_not = dict(found)[message_id]
        return None if why_not is None else str(why_not)

    @property
    def texts(self) -> list[str]:
        """What people got, in order."""
        return [sent.text for sent in self.evolution.sent]

    async def sent(self, times: int = 1) -> None:
        """Wait until so many texts were sent, and their echoes are stored."""
        await until(lambda: len(self.evolution.sent) >= times)
        await self.evolution.settled()

    async def stored(self, sql: str, *row: Any) -> None:
        """Wait until a query gives this one row."""
        await until(lambda: self.rows(sql) == [row])

    async def applied(self) -> None:
        """Wait until all deliveries are stored and applied."""
        await self.evolution.settled()
        await self.stored("SELECT count(*) FROM viva.inbox WHERE is_pending", 0)


def row(text: str, message_id: str, *, at: float, **key: Any) -> dict[str, Any]:
    """Make the data of a messages.upsert."""
    return {
        "key": {"remoteJid": PERSON, "fromMe": False, "id": message_id, **key},
        "pushName": "Ana",
        "message": {"conversation": text},
        "messageType": "conversation",
        "messageTimestamp": int(at),
    }


@asynccontextmanager
async def lab(
    database_url: str,
    *,
    servers: int = 1,
    respond: Responder | None = None,
    **settings: Any,
) -> AsyncIterator[Lab]:
    """Run servers with a short debounce; `respond` in the place of `answers`."""
    answers = Answers()
    settings = {
        "webhook_open": True,
        "whatsapp_debounce_seconds": 0.2,
        "shutdown_seconds": 0.5,
        **settings,
    }
    async with FakeEvolution() as evolution, AsyncExitStack() as stack:
        for _ in range(servers):
            running = chat_host(
                database_url,
                respond or answers,
                evolution_url=URL(evolution.url),
                evolution_api_key=evolution.api_key,
                **settings,
            )
            host = await stack.enter_async_context(running)
            evolution.add_webhook(f"{host.origin}/api/v1/webhook/evolution")
        yield Lab(database_url, evolution, answers)
