"""A host with a database pool, a log-in and a prefix of its own, and a middleware.

    export VIVA_DATABASE_URL=postgresql://localhost/viva
    python examples/host_pool.py
    curl -N localhost:8080/help/viva/chat/stream -H 'Cookie: user=ana' \
        -H 'Content-Type: application/json' -d '{"mensagem": "café"}'

viva_server has its own connections and keeps to the schema `viva`, so both may use one
database. The host's pool is open for as long as a responder may run.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from time import perf_counter

import aiopg
from aiohttp import web
from aiohttp.typedefs import Handler

import viva_server

POOL = web.AppKey("pool", aiopg.Pool)


async def open_pool(app: web.Application) -> AsyncIterator[None]:
    dsn = os.environ["VIVA_DATABASE_URL"]
    async with aiopg.create_pool(dsn, minsize=1, maxsize=4) as app[POOL]:
        async with app[POOL].acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(
                "CREATE TABLE IF NOT EXISTS public.prices (name text, cents int);"
                "DELETE FROM public.prices;"
                "INSERT INTO public.prices VALUES ('café', 450), ('pão', 80)"
            )
        yield


@web.middleware
async def timing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The host's own: viva_server adds none and takes none away."""
    began = perf_counter()
    try:
        return await handler(request)
    finally:
        request.app.logger.debug("%s %.3fs", request.path, perf_counter() - began)


def authenticate(request: web.Request) -> str:
    # In your application: the user of your session.
    if user := request.cookies.get("user"):
        return user
    raise viva_server.AuthError


class Prices:
    """Answers from the host's database."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def __call__(
        self, conversation: viva_server.Conversation
    ) -> AsyncIterator[str]:
        name = conversation.messages[-1].content.strip()
        sql = "SELECT cents FROM public.prices WHERE name = %s"
        # The connection goes back before the first word: a reply may take minutes.
        pool = self._app[POOL]
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, (name,))
            row = await cursor.fetchone()
        if row is None:
            yield f"{name}? Não temos."
        else:
            yield f"{name}: "
            yield f"R$ {row[0] / 100:.2f}".replace(".", ",")


async def prices(request: web.Request) -> web.Response:
    pool = request.app[POOL]
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("SELECT name FROM public.prices ORDER BY cents")
        rows = await cursor.fetchall()
    return web.json_response([name for (name,) in rows])


def make_app() -> web.Application:
    app = web.Application(middlewares=[timing])
    app.cleanup_ctx.append(open_pool)
    app.router.add_get("/prices", prices)
    viva_server.setup(
        app, respond=Prices(app), authenticate=authenticate, prefix="/help"
    )
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=int(os.environ.get("PORT", "8080")))
