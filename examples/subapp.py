"""viva_server as a sub-application: everything below /assistant is its own.

    export VIVA_DATABASE_URL=postgresql://localhost/viva VIVA_JWT_SECRET=…
    python examples/subapp.py
    curl -N localhost:8080/assistant/api/v1/viva/chat/stream \
        -H "Authorization: Bearer $(viva-server token --user ana)" \
        -H 'Content-Type: application/json' -d '{"mensagem": "oi"}'

Without `respond` the model that VIVA_MODEL_URL names answers, else the local responder.
"""

from __future__ import annotations

import os

from aiohttp import web

import viva_server


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="the host's own page\n")


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    # Settings come from the environment. Its 404s and 405s are problem+json; the
    # host's stay the host's.
    app.add_subapp("/assistant", viva_server.create_app())
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(),
        port=int(os.environ.get("PORT", "8080")),
        # viva_server works with both settings; aiohttp's default is False.
        handler_cancellation=True,
    )
