"""The proxy cuts as it says, and lets through what it held back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Mode, Proxy
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.errors import StoreError
from viva_server.store.driver.database import Connection, Database


@contextlib.asynccontextmanager
async def _connected(proxy: Proxy) -> AsyncIterator[tuple[Database, Connection]]:
    database = Database(proxy.dsn, connect_seconds=0.5, query_seconds=20.0)
    connection = await database.connect()
    try:
        yield database, connection
    finally:
        await proxy.set("pass")
        await connection.close()
        await database.close()


async def _ping(connection: Connection) -> None:
    assert await connection.fetch_one("read_clock") is not None


@pytest.mark.parametrize("mode", ["drop", "up", "down"])
async def test_what_is_held_back_arrives_when_the_way_is_open_again(
    database_url: str, mode: Mode
) -> None:
    async with Proxy(database_url) as proxy, _connected(proxy) as (database, link):
        await _ping(link)
        await proxy.set(mode)
        ping = asyncio.create_task(_ping(link))
        with pytest.raises(StoreError):
            await database.connect()
        assert not ping.done()
        await proxy.set("pass")
        await ping


async def test_open_connections_are_reset_and_new_ones_refused(
    database_url: str,
) -> None:
    async with Proxy(database_url) as proxy, _connected(proxy) as (database, link):
        port = proxy.port
        await proxy.set("refuse")
        await until(lambda: link.lost)
        with pytest.raises(StoreError, match="refused"):
            await database.connect()
        await proxy.set("pass")
        assert proxy.port == port
        again = await database.connect()
        await _ping(again)
        proxy.reset()
        await until(lambda: again.lost)
        await (await database.connect()).close()


async def test_what_waited_for_longer_than_a_tcp_repeats_it_is_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.proxy._HIGHEST_WAIT_SECONDS", 0.5)
    async with (
        Proxy(database_url, retransmits=True) as proxy,
        _connected(proxy) as (_, link),
    ):
        await proxy.set("drop")
        ping = asyncio.create_task(_ping(link))
        await asyncio.sleep(0.7)
        await proxy.set("pass")
        with pytest.raises(StoreError):
            await ping


async def test_a_machine_that_is_gone_has_no_connections_and_the_clients_have(
    database_url: str,
) -> None:
    backend = "SELECT FROM pg_stat_activity WHERE pid = "
    async with Proxy(database_url) as proxy, _connected(proxy) as (_, link):
        row = await link.fetch_one("backend")
        assert row is not None
        await proxy.set("drop")
        proxy.forget()
        await until(lambda: not run_sql(database_url, f"{backend}{row.pid}"))
        assert not link.lost
        await proxy.set("pass")
        await until(lambda: link.lost)
