"""A host's application with viva_server in it, in this process or in one of its own.

As a process: `python -m tests.host_app --port 8080 [--cancel] [--sub-app]` runs it by
`web.run_app` on the database that VIVA_DATABASE_URL names.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from viva_server import Config, create_app, setup
from viva_server.responders import Conversation

GRACE_SECONDS = 1.0


class HostResource:
    """Something that the host opens and closes, and its responder needs."""

    def __init__(self) -> None:
        self.is_open = False
        self.replies_cut_short = 0
        self.requests = 0

    async def lifespan(self, _: web.Application) -> AsyncIterator[None]:
        self.is_open = True
        yield
        self.is_open = False

    async def respond(self, _: Conversation) -> AsyncGenerator[str, None]:
        """Count for ever."""
        try:
            for number in itertools.count():
                yield f"{number} "
                await asyncio.sleep(0.01)
        finally:
            if not self.is_open:
                self.replies_cut_short += 1


RESOURCE = web.AppKey("resource", HostResource)


def host_app(config: Config, *, sub_app: bool) -> web.Application:
    """Make a host with a middleware, a resource and a route of its own."""
    resource = HostResource()

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource.requests += 1
        return await handler(request)

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="host")

    app = web.Application(middlewares=[count])
    app[RESOURCE] = resource
    app.router.add_get("/hello", hello)
    if sub_app:
        app.add_subapp("/assistant", create_app(config, respond=resource.respond))
    else:
        setup(app, config, respond=resource.respond, prefix="/assistant/api/v1")
    # After viva_server, so that it is closed before viva_server's own clean-up.
    app.cleanup_ctx.append(resource.lifespan)
    return app


def from_environment() -> web.Application:
    """Make the host as gunicorn does."""
    return host_app(Config.from_env(), sub_app=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.host_app")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cancel", action="store_true")
    parser.add_argument("--sub-app", action="store_true")
    options: Any = parser.parse_args()
    web.run_app(
        host_app(Config.from_env(), sub_app=options.sub_app),
        host="127.0.0.1",
        port=options.port,
        handler_cancellation=options.cancel,
        access_log=None,
    )


if __name__ == "__main__":
    main()
