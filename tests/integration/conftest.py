"""What the tests of the database layer add to the fixtures of all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.evolution import FakeEvolution
from tests.integration.catching import Room
from tests.integration.gates import Gate
from tests.postgres import PostgresServer
from viva_server.store.driver.database import Database
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.ingress.inbox import Inbox


@asynccontextmanager
async def _with_things(dsn: str) -> AsyncIterator[Database]:
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


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """An open Database with one empty table, things (id, word)."""
    async with _with_things(database_url) as database:
        yield database


@pytest.fixture
def own_database_url(own_postgres: PostgresServer) -> str:
    """The connection string of a database on the server of this test alone."""
    return own_postgres.admin_dsn


@pytest.fixture
async def own_db(own_database_url: str) -> AsyncIterator[Database]:
    """The same as db, on the server of this test alone."""
    async with _with_things(own_database_url) as database:
        yield database


@pytest.fixture
def gate(database: Database) -> Gate:
    """The database of the inbox, with a gate in front."""
    return Gate(database)


@pytest.fixture
async def inbox(gate: Gate) -> AsyncIterator[Inbox]:
    """An inbox with small limits."""
    inbox = Inbox(gate, retry_seconds=0.02, max_queued=50, max_deferred=3)
    yield inbox
    gate.opened.set()
    await inbox.close()


@pytest.fixture
async def room(database: Database, database_url: str) -> AsyncIterator[Room]:
    """What a catch-up needs; the inbox is one without small limits."""
    async with FakeEvolution() as evolution:
        client = EvolutionClient(evolution.url, evolution.api_key)
        inbox = Inbox(database, retry_seconds=0.05)
        yield Room(database, database_url, inbox, evolution, client)
        await inbox.close()
        await client.close()
