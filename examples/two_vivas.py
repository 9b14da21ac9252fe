"""Two assistants in one host, each with its prefix, its database and its responder.

    export SALES_DATABASE_URL=postgresql://localhost/sales
    export SUPPORT_DATABASE_URL=postgresql://localhost/support
    export VIVA_JWT_SECRET=…
    python examples/two_vivas.py

On one database they would share each person's sessions: a reply that one of them
generates could be read through the other.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import web

import viva_server


async def sell(_: viva_server.Conversation) -> AsyncIterator[str]:
    yield "O que deseja comprar?"


async def support(_: viva_server.Conversation) -> AsyncIterator[str]:
    yield "O que não funciona?"


def make_app() -> web.Application:
    secret = (os.environ["VIVA_JWT_SECRET"],)
    app = web.Application()
    sales = viva_server.setup(
        app,
        viva_server.Config(
            database_url=os.environ["SALES_DATABASE_URL"],
            jwt_secret=secret,
            disconnect_grace_seconds=0,
        ),
        respond=sell,
        prefix="/sales",
    )
    viva_server.setup(
        app,
        viva_server.Config(
            database_url=os.environ["SUPPORT_DATABASE_URL"], jwt_secret=secret
        ),
        respond=support,
        prefix="/support",
    )
    # setup() returns the services of each; app[viva_server.SERVICES] is the first.
    assert app[viva_server.SERVICES] is sales
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=int(os.environ.get("PORT", "8080")))
