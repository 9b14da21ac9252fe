"""Several statements that are stored together or not at all."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from viva_server.errors import (
    ConstraintError,
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.core import CoreCompiler
from viva_server.store.driver.link import Link
from viva_server.store.driver.pool import Pool
from viva_server.store.driver.queries import Statement
from viva_server.store.driver.rows import Result
from viva_server.store.driver.statements import Statements
from viva_server.store.driver.tasks import Tasks


class Transaction(Statements):
    """A block of statements on one link of the pool, from BEGIN to COMMIT.

    The end of the block commits, an exception rolls back. Cancelling the block leaves
    the statement that is running, COMMIT as well, to end by itself.
    """

    def __init__(self, pool: Pool, tasks: Tasks, compiler: CoreCompiler) -> None:
        super().__init__(tasks, compiler)
        self._pool = pool
        self._link: Link | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._link = await self._pool.acquire()
        try:
            await self._tasks.shield(self._run(Statement("BEGIN", {})))
        except BaseException as error:
            await self._abandon(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._tasks.shield(self._end(commit=True))
        else:
            await self._abandon(error)

    async def _run(self, statement: Statement) -> Result:
        async with self._turn:
            if self._link is None:
                raise StoreError("the transaction is not open")
            try:
                # Never as prepared: where it is not, that undoes the transaction.
                return await self._link.run(statement.sql, statement.parameters)
            except StoreUnavailableError as error:
                error.outcome_unknown = False  # nothing is stored without COMMIT
                raise

    async def _abandon(self, error: BaseException) -> None:
        ending = self._tasks.start(self._end(commit=False))
        if not isinstance(error, asyncio.CancelledError):  # who is cancelled leaves now
            await asyncio.shield(ending)

    async def _end(self, *, commit: bool) -> None:
        """Commit or roll back after the statement that may be running, give back."""
        async with self._turn:
            link, self._link = self._link, None
            if link is None:
                return
            try:
                await (_commit(link) if commit else _roll_back(link))
            finally:
                self._pool.release(link)


async def _commit(link: Link) -> None:
    try:
        result = await link.run("COMMIT", {})
    except (ConstraintError, TransientStoreError):
        raise  # a deferred check: PostgreSQL has rolled back before it committed
    except StoreError as error:
        raise StoreUnavailableError("COMMIT failed", outcome_unknown=True) from error
    if result.tag != "COMMIT":  # no error, only another word
        raise StoreError("a statement had failed: the transaction was rolled back")


async def _roll_back(link: Link) -> None:
    try:
        if not link.lost:
            await link.run("ROLLBACK", {})
    except StoreError:
        link.close()  # the server rolls back then
