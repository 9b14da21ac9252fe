"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chat_host import Host, chat_host
from tests.dictation import saying
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def shared_database_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
async def shared(shared_database_url: str) -> AsyncIterator[Host]:
    """A server for requests that are refused, on a database that tests share."""
    async with chat_host(shared_database_url, saying("oi")) as host:
        yield host
