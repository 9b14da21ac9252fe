"""How much the pool is used can be seen, its waits and refusals among it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from tests.waiting import until
from viva_server.errors import StoreUnavailableError
from viva_server.store.driver.database import Database

SLOW = text("SELECT pg_sleep(0.3)")


async def test_a_wait_for_a_connection_is_counted_with_its_length(
    database_url: str,
) -> None:
    database = Database(database_url, pool_size=1)
    await database.open()
    slow = asyncio.create_task(database.fetch_statement(SLOW))
    await until(lambda: database.pool_usage.busy == 1)
    waiting = asyncio.create_task(database.fetch_one("read_clock"))
    await until(lambda: database.pool_usage.waiting == 1)
    await asyncio.gather(slow, waiting)
    usage = database.pool_usage
    await database.close()

    assert (usage.busy, usage.idle, usage.waiting, usage.refused) == (0, 1, 0, 0)
    assert sum(usage.wait_seconds.counts) == 1
    assert usage.wait_seconds.total > 0


async def test_who_gets_no_connection_in_time_is_counted(database_url: str) -> None:
    database = Database(database_url, pool_size=1, acquire_seconds=0.01)
    await database.open()
    slow = asyncio.create_task(database.fetch_statement(SLOW))
    await until(lambda: database.pool_usage.busy == 1)
    with pytest.raises(StoreUnavailableError):
        await database.fetch_one("read_clock")
    await slow
    usage = database.pool_usage
    await database.close()

    assert usage.refused == 1
    assert sum(usage.wait_seconds.counts) == 0
