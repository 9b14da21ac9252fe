"""Deletes of any size, in statements that are short enough to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from viva_server.errors import TransientStoreError
from viva_server.store.statements import Statements

BATCH = 1000
"""How many rows one statement removes."""

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class Removal:
    """Runs a statement that removes some rows until none is left of them."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def execute(self, query: str, /, **parameters: object) -> int:
        """Run the named query, which has a batch, again and again; count the rows.

        Raises StoreError or one of its kinds; rows of earlier rounds are removed then,
        unless the statements are a transaction's.
        """
        total = 0
        while count := await self._statements.execute(query, **parameters):
            total += count
        return total


async def remove_session(statements: Statements, session_id: str) -> int:
    """Remove a locked session with all that hangs on it; give how many messages.

    What else belongs to a session is removed here as well: one line for each table
    whose rows do not go with its messages.
    """
    removal = Removal(statements)
    await statements.execute("remove_journal", session_id=session_id)
    messages = await removal.execute(
        "remove_messages", session_id=session_id, batch=BATCH
    )
    await statements.execute("delete_session", session_id=session_id)
    return messages


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
