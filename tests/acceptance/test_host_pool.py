"""A host's own pool on the same database: neither disturbs the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiopg
from aiohttp import web

from tests.chat_host import serving, settings
from viva_server import Conversation, setup

SETTINGS = ("synchronous_commit", "search_path", "application_name")


async def shown(pool: aiopg.Pool) -> list[str]:
    async with pool.acquire() as connection, connection.cursor() as cursor:
        values = []
        for name in SETTINGS:
            await cursor.execute(f"SHOW {name}")
            values.append((await cursor.fetchone())[0])
        return values


async def test_a_hosts_pool_stays_open_and_as_it_is(database_url: str) -> None:
    dsn = f"{database_url} options='-c synchronous_commit=off' application_name=host"
    seen: dict[str, list[str]] = {}
    pools: list[aiopg.Pool] = []

    async def pool(_: web.Application) -> AsyncIterator[None]:
        async with aiopg.create_pool(dsn, minsize=1, maxsize=2) as opened:
            pools.append(opened)
            seen["before"] = await shown(opened)
            yield
            # viva_server has ended by now: its work is done in on_shutdown.
            seen["after"] = await shown(opened)

    async def respond(_: Conversation) -> AsyncIterator[str]:
        seen["while"] = await shown(pools[0])
        yield "oi"

    app = web.Application()
    app.cleanup_ctx.append(pool)
    setup(app, settings(database_url), respond=respond)
    async with serving(app) as host:
        answer = await host.ana.ask("oi")
        size = pools[0].size

    assert answer.json["resposta"] == "oi"
    assert seen["before"] == ["off", '"$user", public', "host"]
    assert seen["before"] == seen["while"] == seen["after"]
    assert size == 1
