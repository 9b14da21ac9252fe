"""Processes for the tests of the chat."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.chat.owners import Owner
from tests.integration.chat.rooms import Process, running
from viva_server.store.driver.database import Database


@pytest.fixture
async def process(database_url: str) -> AsyncIterator[Process]:
    """A process whose replies the test dictates."""
    async with running(database_url) as process:
        yield process


@pytest.fixture
async def other(database_url: str, process: Process) -> AsyncIterator[Process]:
    """A second process on the same database."""
    async with running(database_url) as process:
        yield process


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[Owner]:
    """An owner that is registered and holds its lock."""
    owner = Owner(database, await database.connect())
    await owner.register()
    yield owner
    await owner.connection.close()
