"""The ways to run a statement, and a connection of one's own to run them on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from psycopg2.extras import Json
from sqlalchemy import Executable

from viva_server.errors import StoreError
from viva_server.store.driver.core import CoreCompiler
from viva_server.store.driver.link import Link
from viva_server.store.driver.queries import Statement, find_query
from viva_server.store.driver.rows import Result, Row
from viva_server.store.driver.tasks import Tasks

# A statement whose connection was closed needs no more than a turn of the event loop.
ENDING_SECONDS = 0.2


class Statements(ABC):
    """The ways to run a statement, whatever connection it runs on.

    A parameter that is a dict is sent as jsonb, a list as an array (of jsonb where it
    has dicts); wrap a list in `Json` to send it as one jsonb value. Rows come as
    psycopg2 gives them: uuid as str, json and jsonb parsed.

    Cancelling the caller does not cancel the statement, which runs to its end within
    its time-outs. All methods raise `StoreError` or one of its kinds, LookupError for
    an unknown query, TypeError for wrong parameters.
    """

    def __init__(self, tasks: Tasks, compiler: CoreCompiler) -> None:
        self._tasks = tasks
        self._compiler = compiler

    async def fetch(self, query: str, /, **parameters: object) -> list[Row]:
        """Run the named query and return all rows."""
        return (await self._run_query(query, parameters)).rows

    async def fetch_one(self, query: str, /, **parameters: object) -> Row | None:
        """Run the named query and return its first row."""
        rows = (await self._run_query(query, parameters)).rows
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
        compiled = self._compiler.compile(statement)
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

    def __init__(self, link: Link, compiler: CoreCompiler) -> None:
        super().__init__(Tasks(), compiler)
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
        await self._tasks.end_all(ENDING_SECONDS)

    async def _run(self, statement: Statement) -> Result:
        async with self._turn:
            return await self._link.run(*statement)


def _as_driver_value(value: dict[str, object] | list[object]) -> object:
    if isinstance(value, dict):
        return Json(value)
    if dict in map(type, value):  # far cheaper than a loop over a batch of texts
        return [Json(item) if isinstance(item, dict) else item for item in value]
    return value
