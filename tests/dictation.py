"""Responders for tests: fixed texts, and replies that a test dictates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from viva_server.responders import Conversation, Responder


def saying(*deltas: str, pause_seconds: float = 0.0) -> Responder:
    """Make a responder that always gives these deltas."""

    async def respond(_: Conversation) -> AsyncGenerator[str, None]:
        for delta in deltas:
            await asyncio.sleep(pause_seconds)
            yield delta

    return respond


class Dictated:
    """One reply that a test dictates."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.closed = asyncio.Event()
        self._orders: asyncio.Queue[str | BaseException | None] = asyncio.Queue()

    def say(self, *deltas: str) -> None:
        """Give text."""
        for delta in deltas:
            self._orders.put_nowait(delta)

    def end(self, error: BaseException | None = None) -> None:
        """Return, or raise."""
        self._orders.put_nowait(error)

    async def run(self) -> AsyncGenerator[str, None]:
        try:
            while (order := await self._orders.get()) is not None:
                if isinstance(order, BaseException):
                    raise order
                yield order
        finally:
            self.closed.set()


class Dictation:
    """A responder; each of its replies waits for what the test says."""

    def __init__(self) -> None:
        self.replies: list[Dictated] = []
        self._begun: asyncio.Queue[Dictated] = asyncio.Queue()

    def __call__(self, conversation: Conversation) -> AsyncGenerator[str, None]:
        reply = Dictated(conversation)
        self.replies.append(reply)
        self._begun.put_nowait(reply)
        return reply.run()

    async def begun(self) -> Dictated:
        """Wait for the next reply that begins."""
        async with asyncio.timeout(30):
            return await self._begun.get()
