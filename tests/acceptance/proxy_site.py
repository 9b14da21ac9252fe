"""Three processes behind one of the proxies of docs/deploy, and who talks to it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.chat_host import PATIENCE_SECONDS, PREFIX, SECRET, Person
from tests.fakes.model import FakeModel
from tests.fakes.model_answer import ModelRequest
from tests.faults.fleet import Fleet, Server, fleet_of
from tests.postgres import PostgresServer, data_folder
from tests.programs import free_port
from tests.proxies import Proxy, proxying

WEBHOOK_SECRET = "a-secret-of-the-webhook"


@dataclass
class Site:
    """A proxy, the processes behind it and their model."""

    proxy: Proxy
    fleet: Fleet
    model: FakeModel

    def request(self, message: str) -> ModelRequest:
        """Give the one request that the model got for a message."""
        [found] = [each for each in self.model.requests if each.message == message]
        return found

    def served(self, line: str) -> list[Server]:
        """Give the processes whose log has such a line."""
        return [server for server in self.fleet.servers if line in server.log]


@asynccontextmanager
async def proxied(name: str, postgres: PostgresServer) -> AsyncIterator[Site]:
    """Run three processes on a fresh database, and the proxy in front of them."""
    with postgres.database() as dsn, data_folder() as folder:
        async with FakeModel() as model, fleet_of(dsn, model, folder) as fleet:
            for _ in range(3):
                await fleet.start(
                    port=str(free_port()),
                    jwt_secret=SECRET,
                    webhook_secret=WEBHOOK_SECRET,
                    trusted_proxies="127.0.0.1",
                    drain_seconds="60",
                )
            ports = [server.port for server in fleet.servers]
            async with proxying(name, folder, ports) as proxy:
                yield Site(proxy, fleet, model)


def trusting(**options: Any) -> aiohttp.TCPConnector:
    """Make a connector that takes the tests' certificate."""
    context = certificate_of_the_tests()
    return aiohttp.TCPConnector(limit=0, ssl=context, **options)


def certificate_of_the_tests() -> ssl.SSLContext:
    """Make a context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def person(site: Site, user: str, **options: Any) -> AsyncIterator[Person]:
    """Give a person who talks to the proxy."""
    timeout = aiohttp.ClientTimeout(total=2 * PATIENCE_SECONDS)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=trusting(**options)
    ) as session:
        yield Person(session, site.proxy.origin + PREFIX, user)
