"""viva_server under gunicorn: any number of worker processes on one database.

    export VIVA_DATABASE_URL=postgresql://localhost/viva VIVA_JWT_SECRET=…
    gunicorn examples.gunicorn_app:app --worker-class aiohttp.GunicornWebWorker \
        --workers 2 --bind 127.0.0.1:8080

A client may come back to any worker: the one that does not generate a reply follows it
through the database. `--preload` works too. A worker that gunicorn kills
(`--timeout`) loses nothing that anybody saw; another closes its replies.
"""

from __future__ import annotations

from aiohttp import web

import viva_server


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="the host's own page\n")


app = web.Application()
app.router.add_get("/", hello)
viva_server.setup(app)
