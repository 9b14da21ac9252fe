"""Fixtures of the acceptance tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.acceptance.proxy_site import Site, proxied
from tests.browser import ChatPage, chat_page, chromium, server
from tests.chat_host import Host, chat_host
from tests.dictation import saying
from tests.fakes.model import FakeModel
from tests.looks import LOOKS
from tests.operator_page import OperatorPage, fill, operator_page
from tests.postgres import PostgresServer
from tests.programs import Program


@pytest.fixture(scope="session")
def shared_database_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
async def shared(shared_database_url: str) -> AsyncIterator[Host]:
    """A server for requests that are refused, on a database that tests share."""
    async with chat_host(shared_database_url, saying("oi")) as host:
        yield host


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium that tests of the page share."""
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def model() -> AsyncIterator[FakeModel]:
    """The model of `site`; a message may say what it does."""
    async with FakeModel() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def site(shared_database_url: str, model: FakeModel) -> AsyncIterator[Program]:
    """A server that tests of the page share, each as another user."""
    async with server(shared_database_url, model) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def chat(browser: Browser, site: Program) -> AsyncIterator[ChatPage]:
    """An empty tab for the page of `site`."""
    async with chat_page(browser, site.origin) as page:
        yield page


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> str:
    """The name of a kind of browser."""
    return str(request.param)


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures go; with PAGE_SCREENSHOTS set to a folder they stay there."""
    folder = Path(os.environ.get("PAGE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture(
    loop_scope="session", scope="module", params=["nginx", "haproxy"]
)
async def proxy_site(
    request: pytest.FixtureRequest, postgres: PostgresServer
) -> AsyncIterator[Site]:
    """A proxy of docs/deploy and what is behind it, shared by a file's tests."""
    async with proxied(request.param, postgres) as running:
        yield running


@pytest.fixture(scope="module")
def day_url(postgres: PostgresServer) -> Iterator[str]:
    """A database with a day's work, which the tests of a file share."""
    with postgres.database() as url:
        fill(url)
        yield url


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def day_site(day_url: str, model: FakeModel) -> AsyncIterator[Program]:
    async with server(day_url, model) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def operator(browser: Browser, day_site: Program) -> AsyncIterator[OperatorPage]:
    async with operator_page(browser, day_site.origin) as page:
        yield page
