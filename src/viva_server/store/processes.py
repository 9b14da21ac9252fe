"""Processes in the database: heartbeat, lock, death and what is done about it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Literal, NamedTuple

from viva_server._version import __version__
from viva_server.store.driver.database import (
    Connection,
    Database,
    Statements,
    Transaction,
)

SETTLE_SECONDS = 60.0
"""How long an event may still prove that a part was sent; the next one waits for it."""

# 2000 long replies have millions of rows in the journal: more than one statement can
# close in its 5 s, and one that is cut short would be begun again for ever.
_CLOSED_AT_ONCE = 100
_MAX_HOST = 255

VerdictKind = Literal["fast", "slow", "found"]


class Seen(NamedTuple):
    """A living process at one look.

    `value` is its heartbeat, to be compared for being another. `is_locked` says whether
    its lock is held, None that it has none. `backend` and `server_started_at` are the
    looker's own: what its connection talks to.
    """

    id: str
    value: str
    is_locked: bool | None
    backend: int
    server_started_at: datetime


class Verdict(NamedTuple):
    """That a process is dead, by the heartbeat at which it stood still."""

    process_id: str
    kind: VerdictKind
    value: str = ""


class Death(NamedTuple):
    """Who declared a process dead, and how; None where the version before did it."""

    by: str | None
    kind: VerdictKind | None


async def add_process(connection: Connection, process_id: str, lock_key: int) -> bool:
    """Register an owner and take its lock; False: it has been declared dead already.

    It may be repeated on another connection until its answer has come.
    """
    row = await connection.fetch_one(
        "add_process",
        process_id=process_id,
        lock_key=lock_key,
        version=__version__,
        host=socket.gethostname()[:_MAX_HOST],
        pid=os.getpid(),
    )
    return row is not None


async def close_dead(
    database: Database, verdict: Verdict, judge_id: str, stands: Callable[[], bool]
) -> list[str] | None:
    """Declare a process dead, close its replies and free its WhatsApp chats, at once.

    Gives the ids of the closed replies. None, and nothing has changed: the verdict does
    not stand any more when there is a connection, the judge is dead itself, the other
    one has beaten, has a statement under way or its lock, or somebody else closes it.

    The judge's row is locked as living and the other's row behind it, so of two that
    judge each other one dies at most. The other's lock keeps the owner's own statements
    out, and each statement looks afresh, so that all text which the owner could commit,
    and so show, is in the closed reply.
    """
    async with database.transaction() as transaction:
        if not stands():
            return None
        if not await transaction.fetch_one("lock_judge", process_id=judge_id):
            return None
        return await _close(transaction, verdict, judge_id)


async def close_found(database: Database) -> dict[str, list[str]]:
    """Declare all processes dead and close what they left; give what was closed.

    Only for who has started PostgreSQL itself and lets nobody begin before this ends:
    nobody can be alive then.
    """
    closed: dict[str, list[str]] = {}
    for row in await database.fetch("load_living"):
        async with database.transaction() as transaction:
            replies = await _close(transaction, Verdict(row.id, "found"), None)
            closed[row.id] = replies or []
    return closed


async def _close(
    transaction: Transaction, verdict: Verdict, judge_id: str | None
) -> list[str] | None:
    process_id = verdict.process_id
    if not await transaction.fetch_one("lock_process", process_id=process_id):
        return None
    dead = await transaction.fetch_one(
        "declare_dead",
        process_id=process_id,
        judge_id=judge_id,
        verdict=verdict.kind,
        value=verdict.value,
    )
    if dead is None:
        return None
    closed = await _close_all(transaction, process_id)
    await release_work(transaction, process_id)
    return closed


async def release_work(database: Statements, process_id: str) -> None:
    """Leave an owner's chats to others; what it was sending may have been sent."""
    await database.execute("release_chats_of_dead", process_id=process_id)
    await database.execute(
        "doubt_sends_of_dead", process_id=process_id, settle_seconds=SETTLE_SECONDS
    )


async def _close_all(transaction: Transaction, process_id: str) -> list[str]:
    """Close all replies of a dead owner, in statements that are short enough to end."""
    owned = await transaction.fetch("load_owned", owner=process_id)
    closed: list[str] = []
    for first in range(0, len(owned), _CLOSED_AT_ONCE):
        batch = owned[first : first + _CLOSED_AT_ONCE]
        rows = await transaction.fetch(
            "close_from_journal",
            process_id=process_id,
            message_ids=[row.message_id for row in batch],
            finish_reason="crashed",
        )
        closed += [row.message_id for row in rows]
    return closed


async def sweep(database: Database) -> None:
    """Remove what nobody needs: old dead processes, text of late statements."""
    await database.execute("forget_dead_processes")
    await database.execute("sweep_journal")
