"""Fixtures of the fault tests: a cluster of real servers, a model, a history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.cluster import Cluster, cluster_of


@pytest.fixture
async def model() -> AsyncIterator[FakeModel]:
    """A model that sends a token each 20 ms; a message may say otherwise."""
    async with FakeModel(Script(tokens=60, interval_ms=20)) as fake:
        yield fake


@pytest.fixture
async def cluster(
    database_url: str, model: FakeModel, tmp_path: Path
) -> AsyncIterator[Cluster]:
    """A cluster on a database of its own, without servers yet."""
    async with cluster_of(database_url, model, tmp_path) as servers:
        yield servers
