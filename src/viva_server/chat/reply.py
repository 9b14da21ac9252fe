"""A reply that this process generates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from viva_server.chat.text import Ending, ReplyText, ending_of
from viva_server.store.driver.database import Statements
from viva_server.store.replies import Chunk, ClosedReply
from viva_server.words import FinishReason, Status

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
        ending = ending_of(
            reply.text,
            status=reply.status,
            finish_reason=reply.finish_reason,
            error_code=reply.error_code,
            error_is_final=reply.error_is_final,
            message_count=self.seq,
        )
        self.closed(ending)

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
