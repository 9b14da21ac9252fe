"""A reply: its committed text, the readers that follow it, and while it is live."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from viva_server.errors import VivaError
from viva_server.store.driver.database import Statements
from viva_server.store.replies import Chunk, ClosedReply, FollowedReply, StoredReply
from viva_server.values import FinishReason, Status

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
    ended: ClosedReply | StoredReply | FollowedReply, text: str, message_count: int
) -> Ending:
    """Describe the ending of a stored text."""
    assert ended.finish_reason is not None, "an ended reply has a reason"
    return Ending(
        status=ended.status,
        finish_reason=ended.finish_reason,
        error_code=ended.error_code,
        error_is_final=ended.error_is_final,
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


_MAX_PENDING_CHARS = 65_536
"""Text that is not committed yet, before the responder has to wait."""


_WHOLE: frozenset[FinishReason] = frozenset({"stop", "length", "content_filter"})


Closing = Callable[[Statements, str, list[ClosedReply]], Awaitable[set[str]]]
"""Stores ended replies of an owner, as `close_replies` does, and what follows."""


class Marker(Protocol):
    """The journal, as a reply sees it."""

    def mark(self, reply: LiveReply, *, at_once: bool = False) -> None:
        """Note that a reply has something to commit."""


class LiveReply(ReplyText):
    """A reply of this process: pending text, committed text, and its end.

    Text is fed by the responder's task and committed by the journal. Once an end is
    asked for nothing is fed any more; the first reason stays.
    """

    def __init__(
        self,
        message_id: str,
        *,
        seq: int,
        journal: Marker,
        max_chars: int,
        on_done: Callable[[LiveReply], None],
        closing: Closing | None = None,
    ) -> None:
        super().__init__(message_id)
        # In the place of close_replies; replies of one closing are stored together.
        self.closing = closing
        self.seq = seq
        self.end_reason: FinishReason | None = None
        self.error_code: str | None = None
        self.error_is_final = False
        self.usage: Mapping[str, Any] | None = None
        # Called once when the end is asked for; stops the responder.
        self.on_end: Callable[[], None] | None = None
        self.started_at = monotonic()
        self.first_text_at: float | None = None
        self.done = asyncio.Event()
        self._on_done = on_done
        self._journal = journal
        self._max_chars = max_chars
        self._pending: list[str] = []
        self._pending_chars = 0
        self._fed = 0
        self._room: asyncio.Future[None] | None = None

    def feed(self, text: str) -> None:
        """Take storable text from the responder; ends the reply at its limit."""
        if self.end_reason is not None or not text:
            return
        room = self._max_chars - self._fed
        if kept := text[:room]:
            self._fed += len(kept)
            self._pending.append(kept)
            self._pending_chars += len(kept)
            self._journal.mark(self)
        if len(text) > room:
            self.end("limit")

    @property
    def has_text(self) -> bool:
        """Whether the responder has given any text."""
        return self._fed > 0

    @property
    def is_full(self) -> bool:
        """Whether the responder has to wait for `room`."""
        return self._pending_chars >= _MAX_PENDING_CHARS and self.end_reason is None

    async def room(self) -> None:
        """Wait until enough of the pending text is committed; for one caller."""
        self._room = asyncio.get_running_loop().create_future()
        await self._room

    def end(
        self,
        reason: FinishReason,
        error_code: str | None = None,
        *,
        is_final: bool = False,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        """Ask for the end; it is committed by the journal's next commit.

        The first reason stays; asking again does nothing. `usage` is the model's count
        of its tokens.
        """
        if self.end_reason is None:
            self.end_reason = reason
            self.error_code = error_code
            self.error_is_final = is_final
            self.usage = usage
            self._journal.mark(self, at_once=True)
            self._stop_responder()

    def flush(self) -> None:
        """Have what is pending committed at once, without waiting for the tick."""
        if self._pending:
            self._journal.mark(self, at_once=True)

    def take_chunk(self) -> Chunk | None:
        """Give all pending text as the next chunk; called by the journal only."""
        if not self._pending:
            return None
        text = "".join(self._pending)
        self._pending.clear()
        self._pending_chars = 0
        return Chunk(self.message_id, self.length, text)

    def take_close(self) -> ClosedReply:
        """Give the whole reply for the closing; called by the journal only."""
        assert self.end_reason is not None, "close after an end was asked for"
        chunk = self.take_chunk()
        text = self.text_after(0) + (chunk.text if chunk else "")
        reason, code = self.end_reason, self.error_code
        if text:
            status: Status = "complete" if reason in _WHOLE else "partial"
            return ClosedReply(self.message_id, text, status, reason, usage=self.usage)
        is_final = self.error_is_final
        if reason == "stop":
            # The model said that it was done, without a word.
            reason, code = "upstream_error", "upstream_empty"
        elif reason in _WHOLE:
            is_final = True  # the same request meets the same limit, or filter
        return ClosedReply(
            self.message_id, "", "failed", reason, code or reason, is_final, self.usage
        )

    def chunk_committed(self, chunk: Chunk) -> None:
        """Take the committed chunk; readers get it, the responder may have room."""
        if self.first_text_at is None:
            self.first_text_at = monotonic()
        self.committed(chunk.text)
        if self._room is not None and self._pending_chars < _MAX_PENDING_CHARS:
            self._make_room()

    def close_committed(self, reply: ClosedReply) -> None:
        """Take the committed closing: the rest of the text, then the ending."""
        if len(reply.text) > self.length:
            self._add(reply.text[self.length :])
        self.closed(ending_of(reply, reply.text, self.seq))

    def closed(self, ending: Ending) -> None:
        super().closed(ending)
        self._finish()

    def drop(self) -> None:
        """Forget what nobody saw and send the readers away; nothing more is written.

        For a fenced owner, and for text that the database refuses.
        """
        self.end_reason = self.end_reason or "crashed"
        self._stop_responder()
        self._pending.clear()
        self._pending_chars = 0
        self.cut()
        self._finish()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _stop_responder(self) -> None:
        self._make_room()
        if self.on_end is not None:
            self.on_end()

    def _finish(self) -> None:
        if not self.done.is_set():
            self.done.set()
            self._on_done(self)


_REPLACEMENT = "\ufffd"


class Storable:
    """Makes the deltas of one reply storable, in order; one object per reply.

    U+0000 and lone surrogates become U+FFFD. A surrogate pair that was split over two
    deltas is joined, so a trailing high surrogate waits for the next delta.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, delta: str) -> str:
        """Return what can be stored now; it may be empty."""
        if not self._held and _is_clean(delta):
            return delta
        text = self._held + delta
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held = text[-1]
            text = text[:-1]
        return _repaired(text)

    def flush(self) -> str:
        """Return what is left when the reply has ended: "" or one U+FFFD."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def _is_clean(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def _repaired(text: str) -> str:
    # UTF-16 joins pairs and knows which halves are lone.
    units = text.encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace").replace("\0", _REPLACEMENT)
