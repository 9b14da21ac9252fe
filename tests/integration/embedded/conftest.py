"""An embedded PostgreSQL in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.postgres import copy_cluster, data_folder
from viva_server.store.embedded.server import EmbeddedPostgres


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as path:
        yield path


@pytest.fixture
async def new_server(
    folder: Path, pg_bin: Path | None
) -> AsyncIterator[EmbeddedPostgres]:
    """A server that was never started, its folder empty."""
    server = EmbeddedPostgres(folder, pg_bin=pg_bin, fast_unsafe=True)
    yield server
    await server.stop()


@pytest.fixture
def server(
    new_server: EmbeddedPostgres, folder: Path, cluster: Path
) -> EmbeddedPostgres:
    """A server that does not run, its cluster made."""
    copy_cluster(cluster, folder)
    return new_server
