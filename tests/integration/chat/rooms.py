"""The rooms behind the doors, on a real database: processes, readers, locks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.dictation import Dictated, Dictation
from viva_server import Config
from viva_server.chat.admission import Question
from viva_server.chat.reply import Ending
from viva_server.chat.runtime import Runtime
from viva_server.chat.service import ChatService, Reading
from viva_server.chat.sessions import SessionService
from viva_server.responders import Responder
from viva_server.store.driver.database import Database
from viva_server.store.people import Person

ANA = Person("web", "ana")
PATIENCE_SECONDS = 30.0


class Line:
    """A client's connection, as far as a reader needs it."""

    def __init__(self) -> None:
        self.is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True


class Process:
    """What one process has: a runtime, which owns replies, and the use cases."""

    def __init__(self, config: Config, respond: Responder | None) -> None:
        assert config.database_url is not None
        self.database = Database(config.database_url, pool_size=5)
        self.runtime = Runtime(config, self.database)
        self.chat = ChatService(config, self.runtime)
        self.sessions = SessionService(self.database, self.chat)
        self.dictation = Dictation()
        self._respond = respond or self.dictation

    @property
    def id(self) -> str:
        return self.runtime.ownership.id

    async def start(self) -> None:
        await self.database.open()
        await self.runtime.start()
        self.chat.start(self._respond)

    async def stop(self) -> None:
        """Leave in order."""
        await self.runtime.drain()
        await self.chat.join()
        await self.runtime.stop()
        await self.database.close()

    async def ask(
        self, content: str = "Oi", *, line: Line | None = None, **question: Any
    ) -> Reading:
        """Ask, as ana unless it says otherwise."""
        question.setdefault("person", ANA)
        return await self.chat.ask(
            Question(content=content, **question), line or Line()
        )

    async def begin(
        self, content: str = "Oi", **question: Any
    ) -> tuple[Reading, Dictated]:
        """Ask, and give the reply that the test dictates."""
        reading = await self.ask(content, **question)
        return reading, await self.dictation.begun()

    async def complete(self, content: str = "Oi", **question: Any) -> Reading:
        """Ask and have a whole reply."""
        reading, model = await self.begin(content, **question)
        model.say("Olá!")
        model.end()
        await read_to_end(reading)
        self.chat.leave(reading)
        return reading


@contextlib.asynccontextmanager
async def running(
    database_url: str,
    respond: Responder | None = None,
    **settings: Any,
) -> AsyncIterator[Process]:
    """Run a process; without `respond` the test dictates its replies."""
    settings = {"shutdown_seconds": 0.5, **settings}
    config = Config(database_url=database_url, jwt_secret=("x" * 32,), **settings)
    process = Process(config, respond)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def read(reading: Reading, chars: int) -> str:
    """Read that many characters at least, for as long as it takes."""
    text = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(text) < chars:
            more = await reading.reader.next()
            assert more is not None, f"it ended after {text!r}"
            text += more
    return text


async def read_to_end(reading: Reading) -> tuple[str, Ending]:
    """Read all there is to come, and the ending."""
    text = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (more := await reading.reader.next()) is not None:
            text += more
    assert reading.reader.reply.ending is not None
    return text, reading.reader.reply.ending


@contextlib.asynccontextmanager
async def held(database: Database, process: Process) -> AsyncIterator[None]:
    """Keep all that a process writes for its replies from being committed.

    Its own row is locked, which each such statement has to lock too.
    """
    async with database.transaction() as transaction:
        locked = await transaction.fetch_one("lock_process", process_id=process.id)
        assert locked is not None
        yield
