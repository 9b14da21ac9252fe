"""The database layer keeps its limits and recovers, whatever the server does."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import aiopg.connection
import psycopg2
import pytest
from sqlalchemy import text

from tests.postgres import PostgresServer, run_sql
from tests.waiting import until
from viva_server.errors import ConstraintError, StoreUnavailableError
from viva_server.store.driver.address import parse_address
from viva_server.store.driver.database import Database
from viva_server.store.driver.link import connect

pytestmark = pytest.mark.both_loops

_INSERT = text("INSERT INTO things VALUES (:id, 'a')")
_SLOW_INSERT = text("INSERT INTO things SELECT :id, 'a' FROM pg_sleep(0.01)")
_COUNT = text("SELECT count(*) AS n FROM things")
_PID = text("SELECT pg_backend_pid() AS pid")
_SLEEP = text("SELECT pg_sleep(:seconds)")


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """A second Database on the same one, with short limits and two connections."""
    database = Database(
        database_url, pool_size=2, acquire_seconds=0.3, query_seconds=0.5
    )
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def _count(db: Database) -> int:
    (row,) = await db.fetch_statement(_COUNT)
    found: int = row.n
    return found


def _end_connections(dsn: str) -> None:
    """Have the server end all connections to a database, as at a stop."""
    run_sql(
        dsn,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def _crash_a_backend(dsn: str) -> None:
    """Kill one backend: the server ends all others, recovers and starts again."""
    ((pid,),) = run_sql(
        dsn, "SELECT min(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%'"
    )
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(psycopg2.OperationalError):
            if not run_sql(dsn, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
                return
        time.sleep(0.02)
    raise TimeoutError


@contextmanager
def _many_sockets(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    sockets = [socket.socket() for _ in range(number)]
    try:
        yield
    finally:
        for each in sockets:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_hundred_cancelled_inserts_are_all_stored(db: Database) -> None:
    tasks = [
        asyncio.create_task(db.fetch_statement(_SLOW_INSERT, id=number))
        for number in range(100)
    ]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(each, asyncio.CancelledError) for each in done)
    async with asyncio.timeout(10):
        while await _count(db) < 100:
            await asyncio.sleep(0.02)


async def test_a_cancelled_caller_leaves_its_connection_healthy(
    database_url: str,
) -> None:
    database = Database(database_url, pool_size=1)
    await database.open()
    (before,) = await database.fetch_statement(_PID)
    task = asyncio.create_task(database.fetch_statement(_SLEEP, seconds=0.1))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.fetch_statement(_PID) == [before]
    await database.close()


async def test_a_statement_beyond_its_time_is_of_unknown_outcome(
    db: Database, other: Database
) -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        await other.fetch_statement(_SLEEP, seconds=30)
    assert caught.value.outcome_unknown
    assert time.monotonic() - started < 3
    assert await _count(other) == 0


async def test_a_frozen_backend_costs_one_statement(
    db: Database, other: Database
) -> None:
    (row,) = await other.fetch_statement(_PID)
    os.kill(row.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            await other.fetch_statement(_COUNT)
        assert caught.value.outcome_unknown
        assert await _count(other) == 0
    finally:
        os.kill(row.pid, signal.SIGCONT)


async def test_a_killed_backend_under_a_statement_is_of_unknown_outcome(
    db: Database,
) -> None:
    connection = await db.connect()
    (row,) = await connection.fetch_statement(_PID)
    sleep = asyncio.create_task(connection.fetch_statement(_SLEEP, seconds=30))
    await asyncio.sleep(0.1)
    await db.fetch_statement(text("SELECT pg_terminate_backend(:pid)"), pid=row.pid)
    with pytest.raises(StoreUnavailableError) as caught:
        await sleep
    assert caught.value.outcome_unknown
    assert connection.lost
    with pytest.raises(StoreUnavailableError):
        await connection.fetch_statement(_PID)
    await connection.close()


@pytest.mark.parametrize("end", [_end_connections, _crash_a_backend])
async def test_a_restart_is_not_seen_by_a_pool_at_rest(
    own_database_url: str, own_db: Database, end: Callable[[str], None]
) -> None:
    db = own_db
    await asyncio.gather(*(db.fetch_statement(_SLEEP, seconds=0.05) for _ in range(4)))
    # The call blocks the event loop, which so has no chance to see the pool die.
    end(own_database_url)
    assert await asyncio.gather(*(_count(db) for _ in range(4))) == [0, 0, 0, 0]


async def test_a_link_at_rest_knows_that_the_server_left(database_url: str) -> None:
    link = await connect(
        parse_address(database_url), connect_seconds=3, query_seconds=5
    )
    assert link.still_open()
    _end_connections(database_url)
    assert not link.still_open()


async def test_a_former_primary_is_left(db: Database, database_url: str) -> None:
    name = parse_address(database_url)["dbname"]
    await db.execute_script(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    database = Database(database_url, pool_size=1)
    with pytest.raises(StoreUnavailableError) as caught:
        await database.fetch_statement(_INSERT, id=1)
    assert not caught.value.outcome_unknown
    await db.execute_script(
        "BEGIN READ WRITE;"
        f"ALTER DATABASE {name} SET default_transaction_read_only = off; COMMIT"
    )
    await database.fetch_statement(_INSERT, id=1)
    await database.close()


async def test_a_crash_loses_nothing_that_was_confirmed(
    own_postgres: PostgresServer, own_db: Database
) -> None:
    confirmed: set[int] = set()
    unknown: set[int] = set()

    async def insert(numbers: range) -> None:
        for number in numbers:
            try:
                await own_db.fetch_statement(_INSERT, id=number)
                confirmed.add(number)
            except StoreUnavailableError as error:
                if error.outcome_unknown:
                    unknown.add(number)
                await asyncio.sleep(0.005)

    writers = [asyncio.create_task(insert(range(start, 2000, 4))) for start in range(4)]
    await asyncio.sleep(0.1)
    await own_postgres.crash()
    await own_postgres.start()
    await asyncio.gather(*writers)
    rows = await own_db.fetch_statement(text("SELECT id FROM things"))
    stored = {row.id for row in rows}
    assert confirmed <= stored <= confirmed | unknown
    assert max(confirmed) > 1900


async def test_a_server_that_is_away_is_reported_and_found_again(
    own_postgres: PostgresServer, own_db: Database, own_database_url: str
) -> None:
    late = Database(own_database_url)
    await own_postgres.stop()
    try:
        for database in (own_db, late):
            with pytest.raises(StoreUnavailableError) as caught:
                await database.open()
            assert not caught.value.outcome_unknown
    finally:
        await own_postgres.start()
    await late.open()
    assert await _count(late) == await _count(own_db) == 0
    await late.close()


async def test_refused_connections_leave_nothing_behind() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://viva@127.0.0.1:{unused.getsockname()[1]}/postgres"
        database = Database(url)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, no paths
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(10):
                with pytest.raises(StoreUnavailableError, match="refused"):
                    await database.open()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    await database.close()


async def test_a_server_that_does_not_answer_costs_the_connect_time() -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://viva@127.0.0.1:{silent.getsockname()[1]}/postgres"
        database = Database(url, connect_seconds=0.3)
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            await database.open()
        assert time.monotonic() - started < 2
        await database.close()


async def test_an_exhausted_pool_refuses_in_time_and_recovers(
    db: Database, other: Database
) -> None:
    async with other.transaction(), other.transaction():
        started = time.monotonic()
        for refused in await asyncio.gather(
            *(other.fetch_statement(_COUNT) for _ in range(10)), return_exceptions=True
        ):
            assert isinstance(refused, StoreUnavailableError)
            assert not refused.outcome_unknown
        assert time.monotonic() - started < 2
    assert await _count(other) == 0


async def test_the_line_for_a_connection_is_bounded(
    db: Database, other: Database
) -> None:
    async with other.transaction(), other.transaction():
        tasks = [asyncio.create_task(other.fetch_statement(_COUNT)) for _ in range(201)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # On a busy machine some have waited in vain by now; one did not even wait.
        refused = [str(task.exception()) for task in tasks if task.done()]
        assert refused.count("too many wait for a database connection") == 1
        await asyncio.wait(tasks)
        reasons = [str(task.exception()) for task in tasks]
        assert reasons.count("no database connection is free") == 200


async def test_above_1024_sockets_errors_are_errors(
    own_postgres: PostgresServer, own_database_url: str, own_db: Database
) -> None:
    real_select = select.select
    with _many_sockets(1200):
        database = Database(own_database_url, pool_size=3)
        await database.open()
        started = time.monotonic()
        await database.fetch_statement(_INSERT, id=1)
        with pytest.raises(ConstraintError):
            await database.fetch_statement(_INSERT, id=1)
        connection = await database.connect()
        (row,) = await connection.fetch_statement(_PID)
        await database.fetch_statement(
            text("SELECT pg_terminate_backend(:pid)"), pid=row.pid
        )
        with pytest.raises(StoreUnavailableError):
            await connection.fetch_statement(_PID)
        await connection.close()
        await own_postgres.restart()
        assert await _count(database) == 1
        assert time.monotonic() - started < 5
        await database.close()
    assert select.select is real_select
    assert aiopg.connection.__dict__["select"] is not select


async def test_close_waits_for_what_runs(db: Database, database_url: str) -> None:
    database = Database(database_url)
    task = asyncio.create_task(database.fetch_statement(_SLEEP, seconds=0.2))
    await asyncio.sleep(0.1)
    await database.close()
    assert len(await task) == 1
    with pytest.raises(StoreUnavailableError, match="closed"):
        await database.fetch_statement(_COUNT)


async def test_close_is_bounded_and_tells_who_waits(
    db: Database, database_url: str
) -> None:
    database = Database(database_url, pool_size=1)
    running = asyncio.create_task(database.fetch_statement(_SLEEP, seconds=30))
    waiting = asyncio.create_task(database.fetch_statement(_COUNT))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await database.close(within_seconds=0.2)
    assert time.monotonic() - started < 1.5
    for task, unknown in ((running, True), (waiting, False)):
        with pytest.raises(StoreUnavailableError) as caught:
            await task
        assert caught.value.outcome_unknown is unknown


async def test_close_ends_a_transaction_that_stands_still(
    db: Database, database_url: str
) -> None:
    database = Database(database_url)

    async def work() -> None:
        async with database.transaction() as transaction:
            await transaction.fetch_statement(_INSERT, id=1)
            await database.close(within_seconds=0.1)

    with pytest.raises(StoreUnavailableError):
        await work()
    assert await _count(db) == 0


async def test_a_cancellation_with_the_answer_is_no_less_one(database_url: str) -> None:
    """What aiopg waits with forgets it before Python 3.12 (python/cpython#86296)."""
    link = await connect(
        parse_address(database_url), connect_seconds=5, query_seconds=5
    )
    with closing(link):
        running = asyncio.create_task(link.run("SELECT pg_sleep(0.05)", None))
        while (answer := link._connection._waiter) is None:
            await asyncio.sleep(0)
        # Behind the callback of aiopg's own wait, in the same turn of the loop.
        answer.add_done_callback(lambda _: running.cancel())
        await asyncio.wait({running})
        assert running.cancelled()


async def test_a_connection_that_is_closed_as_soon_as_it_is_made_is_none(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = aiopg.connect

    async def make_and_lose(**arguments: Any) -> aiopg.Connection:
        made: aiopg.Connection = await make(**arguments)
        backend = made.raw.get_backend_pid()
        run_sql(database_url, f"SELECT pg_terminate_backend({backend}, 5000)")
        await until(lambda: made.raw.closed)
        return made

    monkeypatch.setattr(aiopg, "connect", make_and_lose)
    with pytest.raises(StoreUnavailableError):
        await connect(parse_address(database_url), connect_seconds=5, query_seconds=5)


async def test_a_connection_that_is_given_up_is_closed_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the second time its socket's number may be another connection's."""
    make = aiopg.connect
    made: list[aiopg.Connection] = []
    states: list[int] = []

    async def make_frozen(**arguments: Any) -> aiopg.Connection:
        connection: aiopg.Connection = await make(**arguments)
        close = connection.close
        os.kill(connection.raw.get_backend_pid(), signal.SIGSTOP)

        def noted() -> object:
            states.append(connection.raw.closed)
            return close()

        monkeypatch.setattr(connection, "close", noted)
        made.append(connection)
        return connection

    monkeypatch.setattr(aiopg, "connect", make_frozen)
    connecting = asyncio.create_task(
        connect(parse_address(database_url), connect_seconds=30, query_seconds=30)
    )
    await until(lambda: made and made[0]._waiter is not None)
    backend = made[0].raw.get_backend_pid()
    connecting.cancel()
    await asyncio.wait({connecting})
    os.kill(backend, signal.SIGCONT)
    assert connecting.cancelled()
    assert states == [0]
