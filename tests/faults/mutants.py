"""Defects put into a server on purpose: each must be seen by the checker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from viva_server.api import request
from viva_server.chat import failure_detector, presence
from viva_server.chat.failure_detector import Limits
from viva_server.chat.journal import Journal
from viva_server.chat.reply import LiveReply
from viva_server.store import processes
from viva_server.store.driver import queries
from viva_server.store.replies import Chunk, ClosedReply
from viva_server.whatsapp.conversation import outbox
from viva_server.whatsapp.conversation.outbox import Send
from viva_server.whatsapp.evolution.catch_up import CatchUp
from viva_server.whatsapp.evolution.client import SendOutcome

_GAP_SECONDS = 0.3
"""Between showing and storing: makes the defect likely to be met by one kill."""


def _shows_first(kind: type[Any]) -> None:
    commit = Journal._commit

    async def shown_first(
        self: Journal,
        items: list[tuple[LiveReply, Any]],
        store: Callable[[Any, Sequence[Any]], Awaitable[None]],
        stored: Callable[[LiveReply, Any], None],
    ) -> None:
        if not items or not isinstance(items[0][1], kind):
            await commit(self, items, store, stored)
            return
        for reply, row in items:
            stored(reply, row)
        await asyncio.sleep(_GAP_SECONDS)
        await commit(self, items, store, lambda _reply, _row: None)

    Journal._commit = shown_first  # type: ignore[method-assign]


def show_before_commit() -> None:
    """Readers see text when it comes, not when it is stored (M5)."""
    _shows_first(Chunk)


def done_before_commit() -> None:
    """`done` goes out and then the reply is closed (M1)."""
    _shows_first(ClosedReply)


def lose_last_chunk() -> None:
    """The closed reply has not all that was shown (M6)."""
    take_close = LiveReply.take_close

    def without_last(self: LiveReply) -> ClosedReply:
        whole = take_close(self)
        return whole._replace(text=whole.text[:-1])

    LiveReply.take_close = without_last  # type: ignore[method-assign]


def short_times() -> None:
    """No defect: the waits that a suite cannot afford, shorter by five or more."""
    limits = Limits(slow_beats=6, start_seconds=1.0, settle_seconds=3.0)
    vars(failure_detector)["LIMITS"] = limits
    vars(presence)["AWAY_SECONDS"] = 4.0
    defaults = presence.Presence.__init__.__kwdefaults__
    assert defaults is not None, "the keep-alive has a default"
    defaults["keep_alive_seconds"] = 1.5
    vars(presence)["WRITE_DEADLINE_SECONDS"] = 3.0
    vars(request)["USER_TIMEOUT_MS"] = 3_000


def short_catch_up() -> None:
    """No defect: missed messages are looked for every 10 s, not every 10 minutes."""
    defaults = CatchUp.__init__.__kwdefaults__
    assert defaults is not None, "the look for missed messages has a default"
    defaults["every_seconds"] = 10.0


def short_settling() -> None:
    """No defect: a send of unknown outcome holds its chat up for 3 s, not for 60."""
    processes.SETTLE_SECONDS = 3.0
    vars(outbox)["SETTLE_SECONDS"] = 3.0


def send_blindly() -> None:
    """What may have been sent is sent again."""
    write = outbox.Outbox._finish

    async def finish(
        self: outbox.Outbox, owner: str, send: Send, outcome: SendOutcome, **how: Any
    ) -> None:
        if outcome.kind == "unknown":
            outcome = SendOutcome("retry", reason=outcome.reason)
        await write(self, owner, send, outcome, **how)

    outbox.Outbox._finish = finish  # type: ignore[method-assign]


def write_when_dead() -> None:
    """A process that was declared dead goes on writing: no fence (M8)."""
    short_times()
    # A look tells of the death as well, and may come before the first write.
    for name in ("append_chunks", "close_replies", "beat", "look_at_processes"):
        sql = queries.find_query(name).sql.replace("p.dead_at", "dead_at")
        sql = sql.replace("dead_at IS NULL", "TRUE")
        sql = sql.replace("AND m.status = 'streaming'", "")
        object.__setattr__(queries.find_query(name), "sql", sql)
        object.__setattr__(queries.find_query(name), "prepared", None)


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        show_before_commit,
        done_before_commit,
        lose_last_chunk,
        short_times,
        short_catch_up,
        short_settling,
        send_blindly,
        write_when_dead,
    )
}
