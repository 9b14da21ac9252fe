"""The committed text of a reply and the readers that follow it."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from viva_server.errors import VivaError
from viva_server.words import FinishReason, Status

PIECE_CHARS = 4096
"""How much text a reader is given at once.

A client sees an event when all of it has come. One that reads slowly, and is cut by the
write deadline before the end of an event, would ask for the same text for ever.
"""


class ReaderGoneError(VivaError):
    """The client has closed the connection."""


class ReaderCutError(VivaError):
    """The stream cannot go on here: end it without an ending, so the client resumes.

    The process has been fenced, or the database is away for too long.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a reply ended, as stored."""

    status: Status
    finish_reason: FinishReason
    error_code: str | None
    error_is_final: bool
    chars: int
    sha256: str
    message_count: int


def ending_of(
    text: str,
    *,
    status: Status,
    finish_reason: FinishReason,
    error_code: str | None,
    error_is_final: bool,
    message_count: int,
) -> Ending:
    """Describe the ending of a stored text."""
    return Ending(
        status=status,
        finish_reason=finish_reason,
        error_code=error_code,
        error_is_final=error_is_final,
        chars=len(text),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        message_count=message_count,
    )


class Connection(Protocol):
    """A client's connection, as far as a reader needs it."""

    def is_closing(self) -> bool:
        """Whether the client has left, as far as the transport knows by now."""

    def abort(self) -> None:
        """End the connection at once, without a clean end."""


class ReplyText:
    """What is committed of a reply, and its readers.

    Every character in it is in the database. Offsets count characters (code points).
    """

    def __init__(self, message_id: str, text: str = "") -> None:
        self.message_id = message_id
        self.ending: Ending | None = None
        self.is_cut = False
        self.readers: set[Reader] = set()
        self._chunks: list[str] = []
        self._ends: list[int] = []
        self.length = 0
        if text:
            self._add(text)

    def text_after(self, offset: int, limit: int | None = None) -> str:
        """Give the committed text behind `offset` characters, at most `limit` of it."""
        if offset >= self.length:
            return ""
        end = self.length if limit is None else min(self.length, offset + limit)
        first = bisect_right(self._ends, offset)
        last = bisect_left(self._ends, end, first)
        before = self._ends[first] - len(self._chunks[first])
        text = "".join(self._chunks[first : last + 1])
        return text[offset - before : end - before]

    def committed(self, text: str) -> None:
        """Take text that has been committed, and give it to the readers."""
        start = self.length
        self._add(text)
        for reader in self.readers:
            reader.give(text, start)

    def closed(self, ending: Ending) -> None:
        """Take the committed ending, and wake the readers."""
        self.ending = ending
        self.wake_readers()

    def cut(self) -> None:
        """Send all readers away without an ending."""
        self.is_cut = True
        self.wake_readers()

    def wake_readers(self) -> None:
        for reader in self.readers:
            reader.wake()

    def _add(self, text: str) -> None:
        self._chunks.append(text)
        self.length += len(text)
        self._ends.append(self.length)


class Reader:
    """A cursor into one reply, for one client.

    Made by the presence (`chat.presence`), which looks at the connection every 0.1 s
    and wakes a reader that is gone or silent for long. New text comes in one of two
    ways: `offer` takes it in the journal's task, right behind the commit, while the
    client keeps pace; else `next` gives it to the client's own task.
    """

    __slots__ = (
        "_waiter",
        "connection",
        "cursor",
        "is_cut",
        "is_gone",
        "is_silent",
        "last_write",
        "offer",
        "reply",
        "writing_since",
    )

    def __init__(
        self, reply: ReplyText, cursor: int, connection: Connection, now: float
    ) -> None:
        self.reply = reply
        self.cursor = cursor
        self.connection = connection
        self.is_gone = False
        self.is_cut = False
        self.is_silent = False
        self.last_write = now
        # Since when a write has been under way (loop time); the deadline is judged
        # by the presence, since a timer per write would cost more than the write.
        self.writing_since: float | None = None
        # Takes text, and the cursor behind it, while `next` waits; False leaves both
        # to `next`. It saves a future and a switch of tasks for each token.
        self.offer: Callable[[str, int], bool] | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> str | None:
        """Wait for text behind the cursor, give a piece and move the cursor behind it.

        Gives "" after a long silence (send a keep-alive) and None when the reply has
        ended and all of its text was given. A cancellation changes nothing.

        Raises:
            ReaderGoneError: the client has left.
            ReaderCutError: end the connection without an ending.
        """
        reply = self.reply
        while True:
            if self.is_gone:
                raise ReaderGoneError
            if self.cursor < reply.length:
                text = reply.text_after(self.cursor, PIECE_CHARS)
                self.cursor += len(text)
                return text
            if reply.is_cut or self.is_cut:
                raise ReaderCutError
            if reply.ending is not None:
                return None
            if self.is_silent:
                self.is_silent = False
                return ""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        """Let `next` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def give(self, text: str, start: int) -> None:
        """Offer text just committed behind `start` characters, or let `next` look."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # `next` looks anyway
        end = start + len(text)
        if (
            self.offer is not None
            and self.cursor == start
            and len(text) <= PIECE_CHARS
            and not self.is_gone
            and self.offer(text, end)
        ):
            self.cursor = end
        else:
            waiter.set_result(None)
