"""Processes in the database: heartbeat, lock, death and what is done about it."""

from __future__ import annotations

import os
import socket

from viva_server._version import __version__
from viva_server.store.db import Connection, Database, Transaction
from viva_server.store.statements import Statements

LATE_SECONDS = 1.0
"""A heartbeat this old, with the process's lock free, is a death."""

FROZEN_SECONDS = 15.0
"""A heartbeat this old is a death, whoever holds the lock."""

SETTLE_SECONDS = 60.0
"""How long an event may still prove that a part was sent; the next one waits for it."""

# 2000 long replies have millions of rows in the journal: more than one statement can
# close in its 5 s, and one that is cut short would be begun again for ever.
_CLOSED_AT_ONCE = 100
_MAX_HOST = 255


async def add_process(connection: Connection, process_id: str, lock_key: int) -> bool:
    """Register an owner and take its lock; give whether the lock is held."""
    await connection.execute(
        "add_process",
        process_id=process_id,
        lock_key=lock_key,
        version=__version__,
        host=socket.gethostname()[:_MAX_HOST],
        pid=os.getpid(),
    )
    return await take_lock(connection, lock_key)


async def take_lock(connection: Connection, lock_key: int) -> bool:
    """Take the lock that says "alive"; False while a stale connection has it."""
    row = await connection.fetch_one("take_process_lock", lock_key=lock_key)
    return row is not None and bool(row.held)


async def beat(connection: Connection, process_id: str, readers: int = 0) -> bool:
    """Write the heartbeat, and how many readers this process has, for the operator.

    False means that this process has been declared dead.
    """
    row = await connection.fetch_one("beat", process_id=process_id, readers=readers)
    return row is not None


async def remove_process(connection: Connection, process_id: str) -> None:
    """Leave in order; does nothing while something is still owned."""
    await connection.execute("remove_process", process_id=process_id)


async def find_silent(database: Database, process_id: str, *, sole: bool) -> list[str]:
    """Give the processes whose heartbeat is late.

    With `sole`, all others: the caller knows that no other process can live.
    """
    rows = await database.fetch(
        "find_silent_processes",
        process_id=process_id,
        sole=sole,
        late_seconds=LATE_SECONDS,
        frozen_seconds=FROZEN_SECONDS,
    )
    return [row.id for row in rows]


async def bury(database: Database, process_id: str, *, sole: bool) -> list[str] | None:
    """Declare a process dead, close its replies and free its WhatsApp chats, at once.

    Gives the ids of the closed replies, or None if it lives or another buries it. The
    row's lock keeps the owner's own statements out, and each statement looks afresh, so
    that all text which the owner could commit, and so show, is in the closed reply.
    """
    async with database.transaction() as transaction:
        if not await transaction.fetch_one("lock_process", process_id=process_id):
            return None
        dead = await transaction.fetch_one(
            "declare_dead",
            process_id=process_id,
            sole=sole,
            late_seconds=LATE_SECONDS,
            frozen_seconds=FROZEN_SECONDS,
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
