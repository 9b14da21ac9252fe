"""What is kept no longer, and deletes of any size: sessions, deliveries, processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from viva_server.errors import ClocksDifferError, TransientStoreError
from viva_server.store.driver.database import Database, Transaction
from viva_server.store.export import FIRST_ID
from viva_server.store.health import CLOCK_SECONDS, clock_offset_seconds
from viva_server.store.people import Counts, audited
from viva_server.store.processes import sweep

DAY_SECONDS = 86_400.0
KEY_DAYS = 30.0
"""For so long a second delivery of an event is known as such."""

_SESSIONS = 500
_STRETCH = 500
_AUDIT_DAYS = 5 * 365.25
_PURGES_DAYS = 90.0

BATCH = 1000
"""How many rows one statement removes."""

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class Purge:
    """Removes what is older than it may be; each step is a transaction of its own.

    Others may purge at the same time. What was removed stays so when it is cut.

    Args:
        database: stays its caller's.
        session_days: how long a session stays after its last activity; None for ever.
        inbox_days: how long the content of a delivery stays.
        advance: called with how many more rows were looked at.
    """

    def __init__(
        self,
        database: Database,
        *,
        session_days: float | None,
        inbox_days: float,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.counts: Counts = {
            "sessions": 0,
            "messages": 0,
            "emptied_deliveries": 0,
            "removed_deliveries": 0,
            "removed_turns": 0,
        }
        self._database = database
        self._session_days = session_days
        self._inbox_days = inbox_days
        self._advance = advance

    async def run(self) -> None:
        """Purge.

        Raises:
            ClocksDifferError: nothing was removed, since nobody knows how old it is.
            StoreError: or one of its kinds.
        """
        offset_seconds = await clock_offset_seconds(self._database)
        if abs(offset_seconds) > CLOCK_SECONDS:
            raise ClocksDifferError(
                f"PostgreSQL's clock is {offset_seconds:.0f} s ahead of ours: "
                "nothing is purged"
            )
        async with audited(self._database, "purge", None, self.counts):
            if self._session_days is not None:
                await self._remove_idle_sessions(self._session_days * DAY_SECONDS)
            await self._purge_inbox()
            await self._purge_chats(self._inbox_days * DAY_SECONDS)
            await sweep(self._database)
            await self._forget_audits()

    async def _remove_idle_sessions(self, old_seconds: float) -> None:
        after_id = FIRST_ID
        while stretch := await self._database.fetch(
            "find_idle_sessions",
            after_id=after_id,
            old_seconds=old_seconds,
            batch=_SESSIONS,
        ):
            for row in stretch:
                if row.is_idle:
                    await self._remove_if_idle(row.id, old_seconds)
            after_id = stretch[-1].id
            self._advance(len(stretch))

    async def _remove_if_idle(self, session_id: str, old_seconds: float) -> None:
        """Remove a whole session, unless somebody has written in it meanwhile."""
        messages = await patiently(lambda: self._remove_idle(session_id, old_seconds))
        if messages is not None:
            self.counts["sessions"] += 1
            self.counts["messages"] += messages

    async def _remove_idle(self, session_id: str, old_seconds: float) -> int | None:
        async with self._database.transaction() as transaction:
            locked = await transaction.fetch_one(
                "lock_idle_session", session_id=session_id, old_seconds=old_seconds
            )
            if locked is None:
                return None
            live = await transaction.fetch_one("find_live_reply", session_id=session_id)
            if live is not None:
                return None
            return await remove_session(transaction, session_id)

    async def _purge_inbox(self) -> None:
        if self._inbox_days < KEY_DAYS:
            # The queue's messages go with it, else with their deliveries.
            await self._empty_old_deliveries(self._inbox_days * DAY_SECONDS)
        self.counts["removed_deliveries"] = await Removal(self._database).execute(
            "remove_old_deliveries",
            old_seconds=max(self._inbox_days, KEY_DAYS) * DAY_SECONDS,
            key_seconds=KEY_DAYS * DAY_SECONDS,
            batch=BATCH,
        )

    async def _empty_old_deliveries(self, old_seconds: float) -> None:
        after_id: str | None = FIRST_ID
        while after_id is not None:
            [row] = await self._database.fetch(
                "empty_old_deliveries",
                after_id=after_id,
                old_seconds=old_seconds,
                batch=_STRETCH,
            )
            self.counts["emptied_deliveries"] += row.emptied
            after_id = row.last_id
            self._advance(row.looked)

    async def _purge_chats(self, old_seconds: float) -> None:
        """Remove turns with what was sent, then chats and lids that nothing needs."""
        after_id: str | None = FIRST_ID
        while after_id is not None:
            [row] = await self._database.fetch(
                "remove_old_turns",
                after_id=after_id,
                old_seconds=old_seconds,
                batch=_STRETCH,
            )
            self.counts["removed_turns"] += row.removed
            after_id = row.last_id
        removal = Removal(self._database)
        await removal.execute("remove_idle_chats", batch=BATCH)
        await removal.execute("remove_idle_lids", batch=BATCH)

    async def _forget_audits(self) -> None:
        for action, days in (
            ("export", _AUDIT_DAYS),
            ("erase", _AUDIT_DAYS),
            ("purge", _PURGES_DAYS),
        ):
            await self._database.execute(
                "forget_audits", action=action, old_seconds=days * DAY_SECONDS
            )


async def was_purged(database: Database, within_seconds: float) -> bool:
    """Tell whether a purge that began in that time has been done to its end."""
    row = await database.fetch_one(
        "has_recent_audit", action="purge", old_seconds=within_seconds
    )
    return row is not None and bool(row.found)


class Removal:
    """Runs statements that remove a batch of rows each, until none is left."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def execute(self, query: str, /, **parameters: object) -> int:
        """Run the named query, which has a batch, again and again; count the rows.

        Raises StoreError or one of its kinds; rows of earlier rounds are removed then.
        """
        total = 0
        while count := await self._database.execute(query, **parameters):
            total += count
        return total


async def remove_session(transaction: Transaction, session_id: str) -> int:
    """Remove a locked session with all that hangs on it; give how many messages.

    A table whose rows belong to a session and do not go with its messages needs a
    line here.
    """
    [row] = await transaction.fetch("find_seqs", session_id=session_id)
    removed = 0
    for after_seq in range(row.first_seq - 1, row.last_seq, BATCH):
        removed += await transaction.execute(
            "remove_messages", session_id=session_id, after_seq=after_seq, batch=BATCH
        )
    await transaction.execute("delete_session", session_id=session_id)
    return removed


async def patiently(operation: Callable[[], Awaitable[T]]) -> T:
    """Repeat what others' locks have undone; nothing of it is stored in between.

    Raises:
        TransientStoreError: ten times in a row.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return await operation()
        except TransientStoreError:
            await asyncio.sleep(_PAUSE_SECONDS)
    return await operation()
