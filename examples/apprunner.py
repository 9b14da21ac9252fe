"""A host that runs its own loop: AppRunner, a site, its signals, its resources.

export VIVA_DATABASE_URL=postgresql://localhost/viva VIVA_JWT_SECRET=…
python examples/apprunner.py
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

import viva_server

SESSION = web.AppKey("session", ClientSession)


async def client_session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as app[SESSION]:
        yield


def make_app() -> web.Application:
    app = web.Application()
    # A resource of the host. viva_server ends and stores its live replies in
    # on_shutdown, before aiohttp closes any resource: a responder may use it.
    app.cleanup_ctx.append(client_session)
    viva_server.setup(app)
    return app


async def main() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(make_app())
    await runner.setup()
    try:
        port = int(os.environ.get("PORT", "8080"))
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await stop.wait()
    finally:
        # Readers get their last event; what was generated until now is stored.
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
