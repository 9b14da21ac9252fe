"""A host under a real runner, as in production, and persons who use its chat.

aiohttp's own TestServer sets `handler_cancellation`, which no production server does,
so it would test a path of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from tests.streams import Stream
from viva_server import Config, create_app
from viva_server.auth import JwtAuth
from viva_server.responders import Responder

HOST = "127.0.0.1"
PREFIX = "/api/v1"
SECRET = "a-secret-of-the-tests-of-32-bytes-or-more"
PATIENCE_SECONDS = 30.0


def token(user: str = "ana", *, scope: str | None = None) -> str:
    """Sign a token."""
    return JwtAuth([SECRET]).issue(user, scope=scope)


def settings(database_url: str, **changes: Any) -> Config:
    """Make the settings of a server on a test's database."""
    return Config(database_url=database_url, jwt_secret=(SECRET,), **changes)


@asynccontextmanager
async def running(
    app: web.Application, *, handler_cancellation: bool = False
) -> AsyncIterator[str]:
    """Run an application and give its origin."""
    runner = web.AppRunner(
        app, handler_cancellation=handler_cancellation, access_log=None
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        yield f"http://{HOST}:{site.port}"
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    json: Any


class Person:
    """A person at a client; paths are below the prefix."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, user: str = "ana"
    ) -> None:
        self.base = base
        self.session = session
        self.headers = {"Authorization": f"Bearer {token(user)}"}

    async def request(self, method: str, path: str, **kwargs: Any) -> Answer:
        """Send a request and read the whole response."""
        headers = {**self.headers, **kwargs.pop("headers", {})}
        async with self.session.request(
            method, self.base + path, headers=headers, **kwargs
        ) as response:
            body = await response.read()
            is_json = response.content_type.endswith("json")
            value = await response.json(content_type=None) if is_json and body else None
            return Answer(response.status, response.headers, body, value)

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.request("GET", path, **kwargs)

    async def post(self, path: str, body: object = None, **kwargs: Any) -> Answer:
        if body is not None:
            kwargs["json"] = body
        return await self.request("POST", path, **kwargs)

    async def ask(self, message: str, **members: Any) -> Answer:
        """Ask without a stream."""
        return await self.post("/viva/chat", {"mensagem": message, **members})

    async def snapshot(self, **query: Any) -> Any:
        answer = await self.get("/viva/chat/snapshot", params=query)
        assert answer.status == 200, answer.body
        return answer.json

    @asynccontextmanager
    async def stream(
        self, message: str, *, headers: dict[str, str] | None = None, **members: Any
    ) -> AsyncIterator[Stream]:
        """Ask with a stream; the connection closes at the end of the block."""
        async with self.session.post(
            f"{self.base}/viva/chat/stream",
            json={"mensagem": message, **members},
            headers={**self.headers, **(headers or {})},
        ) as response:
            assert response.status == 200, await response.text()
            try:
                yield Stream(response)
            finally:
                response.close()

    @asynccontextmanager
    async def resume(
        self, message_id: str, cursor: str | None = None
    ) -> AsyncIterator[Stream]:
        """Come back to a stream."""
        headers = dict(self.headers)
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        async with self.session.get(
            f"{self.base}/viva/chat/stream/{message_id}", headers=headers
        ) as response:
            assert response.status == 200, await response.text()
            try:
                yield Stream(response)
            finally:
                response.close()


class Host:
    """A running server and the persons who use it."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.origin = origin
        self.session = session
        self.ana = self.person("ana")

    def person(self, user: str, prefix: str = PREFIX) -> Person:
        return Person(self.session, self.origin + prefix, user)


@asynccontextmanager
async def serving(app: web.Application, **runner: Any) -> AsyncIterator[Host]:
    """Run an application; give it with a client that is closed before it stops."""
    async with running(app, **runner) as origin, client() as session:
        yield Host(session, origin)


@asynccontextmanager
async def chat_host(
    database_url: str, respond: Responder, **changes: Any
) -> AsyncIterator[Host]:
    """Run a viva_server of its own."""
    config = settings(database_url, **changes)
    async with serving(create_app(config, respond=respond)) as host:
        yield host


def client() -> aiohttp.ClientSession:
    """Make a client that waits long for a slow machine, but not for ever."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def eventually(
    look: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]
) -> Any:
    """Look again until it is right; fail with the last look."""
    seen = None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_right(seen := await look()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not in time: {seen}") from None
    return seen
