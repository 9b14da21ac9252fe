"""viva_server in a host's application, with the host's own model and log-in.

    VIVA_DATABASE_URL=postgresql://localhost/viva python examples/embed.py
    curl -N localhost:8080/api/v1/viva/chat/stream -H 'X-User: ana' \
        -H 'Content-Type: application/json' -d '{"mensagem": "oi"}'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import web

import viva_server


async def respond(conversation: viva_server.Conversation) -> AsyncIterator[str]:
    yield "Você disse: "
    yield conversation.messages[-1].content


def authenticate(request: web.Request) -> str:
    # Your own session or cookie; trust this header only behind your own proxy.
    if user := request.headers.get("X-User"):
        return user
    raise viva_server.AuthError


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="the host's own page\n")


app = web.Application()
app.router.add_get("/", hello)
config = viva_server.Config(database_url=os.environ["VIVA_DATABASE_URL"])
viva_server.setup(app, config, respond=respond, authenticate=authenticate)

if __name__ == "__main__":
    web.run_app(app, port=int(os.environ.get("PORT", "8080")))
