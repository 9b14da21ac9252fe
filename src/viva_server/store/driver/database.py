"""The database: named queries on pooled connections, transactions, own connections."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from psycopg2.extras import Json

from viva_server.errors import ConfigError
from viva_server.store.driver.address import parse_address
from viva_server.store.driver.core import CoreCompiler
from viva_server.store.driver.link import Link, connect
from viva_server.store.driver.pool import Pool, PoolUsage
from viva_server.store.driver.queries import Statement
from viva_server.store.driver.rows import Result, Row
from viva_server.store.driver.server import ServerFacts
from viva_server.store.driver.statements import ENDING_SECONDS, Connection, Statements
from viva_server.store.driver.tasks import Tasks
from viva_server.store.driver.transaction import Transaction

__all__ = (
    "Connection",
    "Database",
    "Json",
    "PoolUsage",
    "Row",
    "ServerFacts",
    "Transaction",
)

_SCRIPT_SECONDS = 600.0


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
        super().__init__(Tasks(), CoreCompiler())
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
        await self._tasks.end_all(ENDING_SECONDS)

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
        return Connection(await self._connect(query_seconds), self._compiler)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Run the statements of a block in one transaction.

        The end of the block commits, an exception rolls back. A caller that is
        cancelled in COMMIT leaves it running. The server ends a transaction without a
        statement for 10 s.

        Raises:
            StoreUnavailableError: with `outcome_unknown` if COMMIT failed.
            StoreError: the block passed over a statement's error.
        """
        return Transaction(self._pool, self._tasks, self._compiler)

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
