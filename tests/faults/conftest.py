"""Fixtures of the fault tests: a fleet of real servers, a model, a history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.client import Stream
from tests.faults.fleet import Fleet, fleet_of
from tests.postgres import PostgresServer


@pytest.fixture
async def model() -> AsyncIterator[FakeModel]:
    """A model that sends a token each 20 ms; a message may say otherwise."""
    async with FakeModel(Script(tokens=60, interval_ms=20)) as fake:
        yield fake


@pytest.fixture
async def fleet(
    database_url: str, model: FakeModel, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """A fleet on a database of its own, without servers yet."""
    async with fleet_of(database_url, model, tmp_path) as servers:
        yield servers
        Stream.abort_all()
        await asyncio.sleep(0)


@pytest.fixture
async def own_fleet(
    own_postgres: PostgresServer, model: FakeModel, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """A fleet on a PostgreSQL that the test may crash."""
    with own_postgres.database() as dsn:
        async with fleet_of(dsn, model, tmp_path) as fleet:
            yield fleet
