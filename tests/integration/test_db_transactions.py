"""A transaction is stored whole or not at all, and says which."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from viva_server.errors import ConstraintError, StoreError, StoreUnavailableError
from viva_server.store.driver.database import Database, Transaction

pytestmark = pytest.mark.both_loops

_INSERT = text("INSERT INTO things VALUES (:id, 'a')")
_COUNT = text("SELECT count(*) AS n FROM things")
_KILL = text("SELECT pg_terminate_backend(:pid)")


async def _count(db: Database) -> int:
    (row,) = await db.fetch_statement(_COUNT)
    found: int = row.n
    return found


async def _pid(transaction: Transaction) -> int:
    (row,) = await transaction.fetch_statement(text("SELECT pg_backend_pid() AS pid"))
    found: int = row.pid
    return found


async def test_the_end_of_the_block_commits(db: Database) -> None:
    async with db.transaction() as transaction:
        await transaction.fetch_statement(_INSERT, id=1)
        assert await _count(db) == 0
    assert await _count(db) == 1
    with pytest.raises(StoreError, match="not open"):
        await transaction.fetch_statement(_COUNT)


async def test_an_exception_rolls_back(db: Database) -> None:

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert await _count(db) == 0


async def test_a_passed_over_error_is_no_commit(db: Database) -> None:

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            with pytest.raises(ConstraintError):
                await transaction.fetch_statement(_INSERT, id=1)

    with pytest.raises(StoreError, match="rolled back"):
        await work()
    assert await _count(db) == 0


async def test_a_deferred_constraint_is_named_at_commit(db: Database) -> None:
    await db.execute_script(
        "ALTER TABLE things ADD CONSTRAINT word_once UNIQUE (word)"
        " DEFERRABLE INITIALLY DEFERRED"
    )

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            await transaction.fetch_statement(_INSERT, id=2)

    with pytest.raises(ConstraintError, match="word_once"):
        await work()
    assert await _count(db) == 0


async def test_a_lost_connection_before_commit_stored_nothing(db: Database) -> None:

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            await transaction.fetch_statement(_KILL, pid=await _pid(transaction))

    with pytest.raises(StoreUnavailableError) as caught:
        await work()
    assert not caught.value.outcome_unknown
    assert await _count(db) == 0


async def test_a_lost_connection_at_commit_is_of_unknown_outcome(db: Database) -> None:

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            await db.fetch_statement(_KILL, pid=await _pid(transaction))
            await asyncio.sleep(0.1)

    with pytest.raises(StoreUnavailableError) as caught:
        await work()
    assert caught.value.outcome_unknown
    assert await _count(db) == 0


async def test_a_slow_commit_is_of_unknown_outcome_and_may_be_stored(
    database_url: str,
) -> None:
    database = Database(database_url, query_seconds=0.3)
    await database.open()
    # A deferred trigger makes COMMIT take its time; the server is not told to stop.
    await database.execute_script(
        "CREATE TABLE things (id integer, word text);"
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON things"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze();"
    )

    async def work() -> None:
        async with database.transaction() as transaction:
            await transaction.fetch_statement(
                text("SET LOCAL client_connection_check_interval = 0")
            )
            await transaction.fetch_statement(_INSERT, id=1)

    with pytest.raises(StoreUnavailableError) as caught:
        await work()
    assert caught.value.outcome_unknown
    await asyncio.sleep(0.6)
    assert await _count(database) == 1
    await database.close()


async def test_a_cancelled_block_rolls_back_and_gives_its_connection_back(
    database_url: str, db: Database
) -> None:
    one = Database(database_url, pool_size=1)
    await one.open()

    async def work() -> None:
        async with one.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            await transaction.fetch_statement(text("SELECT pg_sleep(0.2)"))

    for delay in (0, 0.001, 0.003, 0.01, 0.05):
        task = asyncio.create_task(work())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _count(one) == 0
    await one.close()


async def test_cancelling_in_commit_leaves_it_running(db: Database) -> None:
    await db.execute_script(
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON things"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze();"
    )

    async def work() -> None:
        async with db.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _count(db) == 0
    await asyncio.sleep(0.4)
    assert await _count(db) == 1
