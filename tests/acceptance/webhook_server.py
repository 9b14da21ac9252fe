"""A real server with nothing but the webhook, for the acceptance tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler
from yarl import URL

from viva_server.api.problems import problem_response, to_problem, unexpected
from viva_server.api.webhook import WebhookDoor
from viva_server.config import Config
from viva_server.whatsapp.inbox import Inbox, Statements

BASE = "/api/v1/webhook/evolution"


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        return problem_response(to_problem(error) or unexpected(), "test")


class WebhookClient:
    """Posts to the server the way Evolution does: the URL goes out as it is written."""

    def __init__(self, session: ClientSession, origin: str) -> None:
        self._session = session
        self._origin = origin

    async def post(
        self, tail: str = "", body: object = None, *, data: Any = None, **kwargs: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        url = URL(self._origin + BASE + tail, encoded=True)
        payload = {"json": body} if data is None else {"data": data}
        async with self._session.post(
            url, allow_redirects=False, **payload, **kwargs
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
    database: Statements, config: Config, **door: Any
) -> AsyncIterator[WebhookClient]:
    """Run the door on a free port, as the lead's table of routes registers it."""
    inbox = Inbox(database, retry_seconds=0.05)
    app = web.Application(middlewares=[_problems])
    handlers = WebhookDoor(config, inbox, **door)
    app.router.add_post(BASE + "{tail:(/.*)?}", handlers.receive)
    app.router.add_get(BASE + "{tail:(/.*)?}", handlers.describe)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with ClientSession() as session:
            yield WebhookClient(session, f"http://{host}:{port}")
    finally:
        await runner.cleanup()
        await inbox.close()
