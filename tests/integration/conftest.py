"""The database layer's own server, database and event loops."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing

import psycopg2
import pytest
import uvloop

from tests.integration.pg_server import PgServer
from viva_server.store.db import Database

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "both_loops: run on asyncio's event loop and on uvloop"
    )


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("both_loops") is None:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """A server that a test may stop or crash, and starts again."""
    server = PgServer()
    try:
        server.create()
        yield server
    finally:
        server.remove()


@pytest.fixture
def dsn(pg_server: PgServer) -> str:
    """The way to a fresh database through the unix socket."""
    name = f"test_{next(_numbers)}"
    with closing(psycopg2.connect(f"{pg_server.socket_dsn} dbname=postgres")) as admin:
        admin.autocommit = True
        admin.cursor().execute(f"CREATE DATABASE {name}")
    return f"{pg_server.socket_dsn} dbname={name}"


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    """An open Database with one empty table, things (id, word)."""
    database = Database(dsn, pool_size=4)
    await database.open()
    await database.execute_script(
        "CREATE TABLE things (id integer CONSTRAINT things_pkey PRIMARY KEY,"
        " word text CONSTRAINT things_word_check CHECK (word <> ''));"
    )
    try:
        yield database
    finally:
        await database.close()
