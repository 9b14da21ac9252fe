"""A real server with nothing but the webhook, for the acceptance tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler
from yarl import URL

from tests.postgres import run_sql
from viva_server.api.edge import problem_response, to_problem
from viva_server.api.problems import unexpected
from viva_server.api.webhook import ANY_TAIL, WebhookHandlers
from viva_server.config import Config
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies
from viva_server.whatsapp.ingress.inbox import Inbox, Statements

Site = tuple[str, int]

BASE = "/api/v1/webhook/evolution"


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        return problem_response(to_problem(error) or unexpected(), "test")


class WebhookClient:
    """Posts to the server the way Evolution does: the URL goes out as it is written."""

    def __init__(
        self,
        session: ClientSession,
        site: Site,
        handlers: WebhookHandlers,
        inbox: Inbox,
    ) -> None:
        self.host, self.port = site
        self._session = session
        self._origin = f"http://{self.host}:{self.port}"
        self._handlers = handlers
        self._inbox = inbox

    @property
    def bytes_in_flight(self) -> int:
        return self._handlers.bytes_in_flight

    @property
    def waiting(self) -> int:
        return self._inbox.waiting

    async def head(self, tail: str = "") -> int:
        async with self._session.head(self._origin + BASE + tail) as response:
            return response.status

    async def post(
        self, tail: str = "", body: object = None, *, data: Any = None, **kwargs: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        url = URL(self._origin + BASE + tail, encoded=True)
        data = json.dumps(body).encode() if data is None else data
        # aiohttp warns of large bytes: they hold up the loop.
        data = BytesIO(data) if isinstance(data, bytes) else data
        headers = {"Content-Type": "application/json", **kwargs.pop("headers", {})}
        async with self._session.post(
            url, data=data, headers=headers, allow_redirects=False, **kwargs
        ) as response:
            return (
                response.status,
                await response.json(content_type=None),
                dict(response.headers),
            )

    async def get(self, tail: str = "") -> tuple[int, dict[str, Any]]:
        async with self._session.get(self._origin + BASE + tail) as response:
            return response.status, await response.json()


@asynccontextmanager
async def webhook_server(
    database: Statements, config: Config, **options: Any
) -> AsyncIterator[WebhookClient]:
    """Run the handlers on a free port, in a host that may have middlewares."""
    inbox = Inbox(database, retry_seconds=0.05)
    app = web.Application(middlewares=[_problems, *options.pop("middlewares", ())])
    heavy_bodies = options.setdefault("heavy_bodies", HeavyBodies())
    handlers = WebhookHandlers(config, inbox, **options)
    app.router.add_post(BASE + ANY_TAIL, handlers.receive)
    app.router.add_get(BASE + ANY_TAIL, handlers.describe)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = runner.addresses[0][:2]
    try:
        async with ClientSession() as session:
            yield WebhookClient(session, address, handlers, inbox)
    finally:
        await runner.cleanup()
        await heavy_bodies.close()
        await inbox.close(within_seconds=0.5)


def rows(url: str, columns: str = "event") -> list[tuple[Any, ...]]:
    """Return columns of the inbox, oldest first."""
    return run_sql(url, f"SELECT {columns} FROM viva.inbox ORDER BY id")


def received(event: str, *, duplicate: bool = False) -> dict[str, Any]:
    """Return the answer to a delivery that was stored."""
    return {
        "status": "received",
        "processed": True,
        "event": event,
        "duplicate": duplicate,
    }
