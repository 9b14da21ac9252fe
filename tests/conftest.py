"""Fixtures of all tests: a real PostgreSQL, a fresh database for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.postgres import PostgresServer, copy_cluster, data_folder
from viva_server.store.db import Database

# The only setting that tests take from outside, so that a matrix can name a version.
PG_BIN = Path(name) if (name := os.environ.get("VIVA_PG_BIN")) else None

for variable in [name for name in os.environ if name.startswith(("VIVA_", "PG"))]:
    del os.environ[variable]


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "both_loops: run on asyncio's event loop and on uvloop",
        "durable: own_postgres keeps its data through a crash of the machine (fsync)",
    ):
        config.addinivalue_line("markers", marker)
    # How long an example takes says how busy the machine is.
    settings.register_profile(
        "viva", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("viva")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("both_loops") is None:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def pg_bin() -> Path | None:
    """The folder of PostgreSQL's programs that VIVA_PG_BIN names, if it does."""
    return PG_BIN


@pytest.fixture(scope="session")
def cluster(pg_bin: Path | None) -> Iterator[Path]:
    """The data folder of a stopped server with the template, to be copied."""
    with data_folder() as folder:
        server = PostgresServer(folder, pg_bin=pg_bin)
        asyncio.run(server.start())
        try:
            server.add_template()
        finally:
            asyncio.run(server.stop())
        yield folder


@pytest.fixture(scope="session")
def postgres(cluster: Path, pg_bin: Path | None) -> Iterator[PostgresServer]:
    """The server of this test process; never crash it, see own_postgres."""
    with data_folder() as folder:
        copy_cluster(cluster, folder)
        server = PostgresServer(folder, pg_bin=pg_bin)
        asyncio.run(server.start())
        try:
            yield server
        finally:
            asyncio.run(server.stop())


@pytest.fixture
async def own_postgres(
    request: pytest.FixtureRequest, cluster: Path, pg_bin: Path | None
) -> AsyncIterator[PostgresServer]:
    """A server for one test, with the template, to stop, crash and start again."""
    durable = request.node.get_closest_marker("durable") is not None
    with data_folder() as folder:
        copy_cluster(cluster, folder)
        server = PostgresServer(folder, pg_bin=pg_bin, fast_unsafe=not durable)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The connection string of a fresh database with the schema."""
    with postgres.database() as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open Database on a fresh database with the schema."""
    database = Database(database_url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
