"""Deletes of any size, in statements that are short enough to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from viva_server.errors import TransientStoreError
from viva_server.store.driver.database import Database, Transaction

BATCH = 1000
"""How many rows one statement removes."""

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.2

T = TypeVar("T")


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
    row = await transaction.fetch_one("find_seqs", session_id=session_id)
    assert row is not None, "min() gives one row"
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
