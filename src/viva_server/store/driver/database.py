"""The database: named queries on pooled connections, transactions, own connections."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from psycopg2.extras import Json

from viva_server.errors import (
    ConfigError,
    ConstraintError,
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.address import parse_address
from viva_server.store.driver.link import Link, Result, Row, connect
from viva_server.store.driver.pool import Pool, PoolUsage
from viva_server.store.driver.queries import Statement, find_query
from viva_server.store.driver.tasks import Tasks

if TYPE_CHECKING:
    from sqlalchemy import Executable

__all__ = (
    "Connection",
    "Database",
    "Json",
    "PoolUsage",
    "Row",
    "ServerFacts",
    "Statements",
    "Transaction",
)

_Kind = TypeVar("_Kind", bound=tuple[Any, ...])

_SCRIPT_SECONDS = 600.0

# A statement whose connection was closed needs no more than a turn of the event loop.
_ENDING_SECONDS = 0.2

_OLDEST, _NEWEST = 14, 18


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself; `version` is such as 150004 for 15.4.

    `synchronous_commit` is that of our own connections, which force it on.
    """

    version: int
    encoding: str
    fsync: bool
    synchronous_commit: str

    def problems(self) -> list[str]:
        """Return why this server cannot be used, one sentence each."""
        found = []
        major = self.version // 10_000
        if not _OLDEST <= major <= _NEWEST:
            found.append(
                f"PostgreSQL {major} is not supported, {_OLDEST} to {_NEWEST} are"
            )
        if self.encoding != "UTF8":
            found.append(f"the database's encoding is {self.encoding}, not UTF8")
        return found


class Statements(ABC):
    """The ways to run a statement, whatever connection it runs on.

    A parameter that is a dict is sent as jsonb, a list as an array (of jsonb where it
    has dicts); wrap a list in `Json` to send it as one jsonb value. Rows come as
    psycopg2 gives them: uuid as str, json and jsonb parsed.

    Cancelling the caller does not cancel the statement, which runs to its end within
    its time-outs. All methods raise `StoreError` or one of its kinds, LookupError for
    an unknown query, TypeError for wrong parameters.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    @overload
    async def fetch(self, query: str, /, **parameters: object) -> list[Row]: ...
    @overload
    async def fetch(
        self, query: str, kind: type[_Kind], /, **parameters: object
    ) -> list[_Kind]: ...
    async def fetch(
        self, query: str, kind: type[Any] = Row, /, **parameters: object
    ) -> list[Any]:
        """Run the named query and return all rows.

        `kind` is a NamedTuple with the query's columns, in their order; a query with
        other columns raises TypeError.
        """
        rows = (await self._run_query(query, parameters)).rows
        return rows if kind is Row else _typed(query, kind, rows)

    @overload
    async def fetch_one(self, query: str, /, **parameters: object) -> Row | None: ...
    @overload
    async def fetch_one(
        self, query: str, kind: type[_Kind], /, **parameters: object
    ) -> _Kind | None: ...
    async def fetch_one(
        self, query: str, kind: type[Any] = Row, /, **parameters: object
    ) -> Any:
        """Run the named query and return its first row, as `fetch` does."""
        rows = await self.fetch(query, kind, **parameters)
        return rows[0] if rows else None

    async def execute(self, query: str, /, **parameters: object) -> int:
        """Run the named query and return how many rows it touched."""
        return (await self._run_query(query, parameters)).rowcount

    async def fetch_statement(
        self, statement: Executable, /, **parameters: object
    ) -> list[Row]:
        """Run a statement of SQLAlchemy Core and return all rows, if it gives any.

        It is compiled once per object: keep the object and give what varies as
        parameters (`bindparam`).
        """
        from viva_server.store.driver.core import compiled_once  # noqa: PLC0415

        compiled = compiled_once(statement)
        values = compiled.bind(parameters)
        running = self._run(Statement(compiled.sql, values))
        return (await self._tasks.shield(running)).rows

    async def _run_query(self, name: str, parameters: dict[str, object]) -> Result:
        query = find_query(name)
        query.check(parameters.keys())
        for key, value in parameters.items():
            if isinstance(value, dict | list):
                parameters[key] = _as_driver_value(value)
        try:
            statement = Statement(query.sql, parameters, query.prepared)
            return await self._tasks.shield(self._run(statement))
        except StoreError as error:
            error.add_note(f"in query {name}")
            raise

    @abstractmethod
    async def _run(self, statement: Statement) -> Result: ...


class Connection(Statements):
    """A connection outside the pool, for what belongs to a session, such as a lock.

    Its statements run one after the other. It does not reconnect. Who asked for it
    closes it.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(Tasks())
        self._link = link
        self._turn = asyncio.Lock()

    @property
    def lost(self) -> bool:
        """Whether it is closed, as far as this side has heard."""
        return self._link.lost

    async def execute_script(self, sql: str) -> None:
        """Run several statements, without parameters, as one transaction."""
        await self._tasks.shield(self._run(Statement(sql, None)))

    async def close(self) -> None:
        """Close it at once; what runs on it fails, its outcome unknown."""
        self._tasks.expect_end()
        self._link.close()
        await self._tasks.end_all(_ENDING_SECONDS)

    async def _run(self, statement: Statement) -> Result:
        async with self._turn:
            return await self._link.run(*statement)


class Transaction(Statements):
    """A block of statements on one link of the pool, from BEGIN to COMMIT.

    The end of the block commits, an exception rolls back. Cancelling the block leaves
    the statement that is running, COMMIT as well, to end by itself.
    """

    def __init__(self, pool: Pool, tasks: Tasks) -> None:
        super().__init__(tasks)
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


class Database(Statements):
    """A pool of connections to one PostgreSQL database.

    Each statement is committed on its own. Connections are made when they are needed,
    kept, and replaced when the server has closed them; `open` makes the first.

    Args:
        dsn: a URL or a libpq DSN.
        pool_size: how many connections there are at most.
        application_name: what pg_stat_activity shows.
        connect_seconds: for making one connection, name resolution included.
        acquire_seconds: how long a statement waits for a free connection.
        query_seconds: how long it may run then; above, its connection is closed and
            its outcome unknown. The server ends it one second later.

    Raises:
        ConfigError: the DSN cannot be read.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 10,
        application_name: str = "viva_server",
        connect_seconds: float = 3.0,
        acquire_seconds: float = 2.0,
        query_seconds: float = 5.0,
    ) -> None:
        super().__init__(Tasks())
        self._parameters = {"application_name": application_name, **parse_address(dsn)}
        self._connect_seconds = connect_seconds
        self._query_seconds = query_seconds
        self._pool = Pool(
            self._connect, size=pool_size, acquire_seconds=acquire_seconds
        )

    @property
    def pool_usage(self) -> PoolUsage:
        """How much the pool is used."""
        return self._pool.usage

    async def open(self) -> None:
        """Prove that the database can be reached.

        Raises:
            StoreUnavailableError: it cannot; `open` may be called again.
        """
        self._pool.release(await self._pool.acquire())

    async def close(self, within_seconds: float = 2.0) -> None:
        """Refuse new statements, wait for the running ones, close all connections.

        A statement that still runs after `within_seconds` fails, its outcome unknown.
        """
        self._tasks.expect_end()
        await self._pool.close(within_seconds)
        await self._tasks.end_all(_ENDING_SECONDS)

    async def check_server(self) -> ServerFacts:
        """Return what the server says of itself.

        Raises:
            ConfigError: its version or encoding is not supported.
            StoreError: or one of its kinds.
        """
        facts = ServerFacts(*(await self.fetch("server_facts"))[0])
        if problems := facts.problems():
            raise ConfigError(problems)
        return facts

    async def execute_script(
        self, sql: str, *, within_seconds: float = _SCRIPT_SECONDS
    ) -> None:
        """Run several statements as one transaction on a connection of their own.

        For migrations: no parameters, `%` stands for itself. Waiting for a lock still
        fails with TransientStoreError after 2 s, so that others do not queue behind.
        """
        await self._tasks.shield(self._run_script(sql, within_seconds))

    async def connect(self, *, query_seconds: float | None = None) -> Connection:
        """Make a connection outside the pool; the caller closes it.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        return Connection(await self._connect(query_seconds))

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Run the statements of a block in one transaction.

        The end of the block commits, an exception rolls back. A caller that is
        cancelled in COMMIT leaves it running. The server ends a transaction without a
        statement for 10 s.

        Raises:
            StoreUnavailableError: with `outcome_unknown` if COMMIT failed.
            StoreError: the block passed over a statement's error.
        """
        return Transaction(self._pool, self._tasks)

    async def _run(self, statement: Statement) -> Result:
        link = await self._pool.acquire()
        try:
            return await link.run(*statement)
        finally:
            self._pool.release(link)

    async def _run_script(self, sql: str, within_seconds: float) -> None:
        link = await self._connect(within_seconds)
        try:
            await link.run(sql, None)
        finally:
            link.close()

    async def _connect(self, query_seconds: float | None = None) -> Link:
        return await connect(
            self._parameters,
            connect_seconds=self._connect_seconds,
            query_seconds=query_seconds or self._query_seconds,
        )


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


def _typed(query: str, kind: Any, rows: list[Row]) -> list[Any]:
    if rows and rows[0]._fields != kind._fields:
        columns = ", ".join(rows[0]._fields)
        raise TypeError(f"query {query} gives {columns}: not a {kind.__name__}")
    return [kind._make(row) for row in rows]


def _as_driver_value(value: dict[str, object] | list[object]) -> object:
    if isinstance(value, dict):
        return Json(value)
    if dict in map(type, value):  # far cheaper than a loop over a batch of texts
        return [Json(item) if isinstance(item, dict) else item for item in value]
    return value
