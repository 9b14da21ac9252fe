"""The faults that the random campaign injects: what is done, to whom, for how long.

Each is a context manager: the fault stands while the block runs, and its end is the
moment from which the server must be well again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psycopg2

from tests.faults.fleet import Server
from tests.faults.history import History
from tests.faults.proxy import Mode
from tests.faults.site import (
    LOG_DISK_BYTES,
    PASSWORD,
    ROLE,
    FaultyPostgres,
    Site,
    can_set_clocks,
    is_isolated,
    lose_packets,
)
from tests.postgres import run_sql

Part = Literal["network", "process", "database", "pooler", "log"]
Effect = Literal["", "silent", "reset", "killed"]
Injected = AbstractAsyncContextManager[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault.

    `is_for_all`: it meets all processes at once, else one. `seconds` are the shortest
    and the longest time that it stands. `effect` is what it does to a process that it
    meets alone: "silent" (the database hears nothing of it), "reset" (its connections
    are reset and new ones refused), "killed"; "" is less than that.
    """

    name: str
    part: Part
    inject: Callable[[Site, History, Sequence[Server]], Injected]
    is_for_all: bool = True
    seconds: tuple[float, float] = (3.0, 20.0)
    effect: Effect = ""

    def fits(self, site: Site) -> bool:
        """Whether this site and machine let it be injected."""
        if self.part == "pooler":
            return site.pooler is not None
        if self.inject in {_losing_5, _losing_20, _unplugged, _moved, _log_disk_full}:
            return is_isolated()
        return self.inject is not _clock_ahead or can_set_clocks()


@contextlib.asynccontextmanager
async def _in_mode(
    mode: Mode, site: Site, _: History, on: Sequence[Server]
) -> AsyncIterator[None]:
    ways = [site.way(server) for server in on]
    for way in ways:
        await way.set(mode)
    try:
        yield
    finally:
        for way in ways:
            await way.set("pass")


@contextlib.asynccontextmanager
async def _reset(site: Site, _: History, on: Sequence[Server]) -> AsyncIterator[None]:
    for server in on:
        site.way(server).reset()
    yield


@contextlib.asynccontextmanager
async def _delayed(site: Site, _: History, on: Sequence[Server]) -> AsyncIterator[None]:
    ways = [site.way(server) for server in on]
    for way in ways:
        way.delay_seconds = site.chance.uniform(0.1, 0.8)
    try:
        yield
    finally:
        for way in ways:
            way.delay_seconds = 0.0


@contextlib.asynccontextmanager
async def _losing(
    percent: int, site: Site, _: History, on: Sequence[Server]
) -> AsyncIterator[None]:
    lose_packets([site.way(server).port for server in on], percent)
    try:
        yield
    finally:
        lose_packets([], 0)


_losing_5, _losing_20, _unplugged = (partial(_losing, n) for n in (5, 20, 100))


@contextlib.asynccontextmanager
async def _moved(site: Site, _: History, on: Sequence[Server]) -> AsyncIterator[None]:
    """The database has another address at once; its name tells it at the end."""
    await site.move()
    try:
        yield
    finally:
        site.tell_address()


@contextlib.asynccontextmanager
async def _killed(
    site: Site, history: History, on: Sequence[Server]
) -> AsyncIterator[None]:
    for server in on:
        server.signal(signal.SIGKILL)
        history.add(server.name, "invoke", "kill", pid=server.pid)
    for server in on:
        await server.exit_code()
    try:
        yield
    finally:
        for server in on:
            await site.run(server)


@contextlib.asynccontextmanager
async def _stopped(_: Site, __: History, on: Sequence[Server]) -> AsyncIterator[None]:
    for server in on:
        server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in on:
            server.signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def _database_crashed(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    await site.postgres.crash()
    try:
        yield
    finally:
        await site.postgres.start()


@contextlib.asynccontextmanager
async def _pooler_killed(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    assert site.pooler is not None, "the fault fits"
    site.pooler.kill()
    try:
        yield
    finally:
        site.pooler.start()


_CUT_OFF = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity\
 WHERE usename = '{ROLE}'"


@contextlib.asynccontextmanager
async def _password_changed(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    dsn = site.fleet.dsn
    run_sql(dsn, f"ALTER ROLE {ROLE} PASSWORD 'another'; {_CUT_OFF}")
    try:
        yield
    finally:
        run_sql(dsn, f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'")


RIGHTS = (
    "INSERT ON viva.messages",
    "INSERT ON viva.journal",
    "UPDATE ON viva.live_replies",
    "UPDATE ON viva.processes",
    "INSERT ON viva.inbox",
    "SELECT ON viva.sessions",
)


@contextlib.asynccontextmanager
async def _right_revoked(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    right = site.chance.choice(RIGHTS)
    run_sql(site.fleet.dsn, f"REVOKE {right} FROM {ROLE}")
    try:
        yield
    finally:
        run_sql(site.fleet.dsn, f"GRANT {right} TO {ROLE}")


@contextlib.contextmanager
def _transaction(dsn: str) -> Iterator[Any]:
    """Give a cursor in a transaction that is rolled back."""
    connection = psycopg2.connect(dsn)
    try:
        yield connection.cursor()
    finally:
        connection.close()


CLOCK_AHEAD_SECONDS = 60
TABLES = ("messages", "sessions", "journal", "inbox")


@contextlib.asynccontextmanager
async def _table_locked(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    with _transaction(site.fleet.dsn) as cursor:
        lock = f"LOCK TABLE viva.{site.chance.choice(TABLES)}"
        await asyncio.to_thread(cursor.execute, lock)
        yield


@contextlib.asynccontextmanager
async def _alter_behind_a_report(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    """Who waits for a report's table holds up all that come behind him."""

    def alter() -> None:
        with _transaction(site.fleet.dsn) as cursor:
            cursor.execute("LOCK TABLE viva.messages")

    with _transaction(site.fleet.dsn) as report:
        await asyncio.to_thread(report.execute, "SELECT count(*) FROM viva.messages")
        altering = asyncio.create_task(asyncio.to_thread(alter))
        while not await asyncio.to_thread(_some_wait, report):
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            report.connection.rollback()
            await altering


def _some_wait(report: Any) -> bool:
    report.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
                   " AND relation = 'viva.messages'::regclass)")  # fmt: skip
    return bool(report.fetchone()[0])


@contextlib.asynccontextmanager
async def _clock_ahead(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    """It starts anew on a machine whose clock is a minute ahead, then on its own."""
    await _started_anew(site, ahead=f"{CLOCK_AHEAD_SECONDS}s")
    try:
        yield
    finally:
        await _started_anew(site, ahead="")


async def _started_anew(site: Site, ahead: str) -> None:
    server = site.postgres.server
    assert isinstance(server, FaultyPostgres), "the site's is one"
    await site.postgres.crash()
    server.ahead = ahead
    await site.postgres.start()


@contextlib.asynccontextmanager
async def _log_disk_full(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    assert site.filler is not None, "the fault fits"
    with contextlib.suppress(OSError), site.filler.open("wb", 0) as filler:
        while filler.write(bytes(2**16)) and filler.tell() < 2 * LOG_DISK_BYTES:
            pass
    try:
        yield
    finally:
        site.filler.unlink()


@contextlib.asynccontextmanager
async def _log_reader_stopped(
    site: Site, _: History, __: Sequence[Server]
) -> AsyncIterator[None]:
    readers = [s.log_reader for s in site.servers if s.log_reader is not None]
    for reader in readers:
        reader.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for reader in readers:
            reader.send_signal(signal.SIGCONT)


def _network(
    name: str,
    inject: Callable[[Site, History, Sequence[Server]], Injected],
    effect: Effect = "",
    *,
    one: tuple[float, float] = (1.0, 20.0),
    all_: tuple[float, float] = (1.0, 20.0),
) -> list[Fault]:
    """Make a fault of the network twice: for one process, and for all at once."""
    return [
        Fault(name=f"{name}, {whom}", part="network", inject=inject,
              is_for_all=whom == "all", seconds=seconds, effect=effect)
        for whom, seconds in (("one", one), ("all", all_))
    ]  # fmt: skip


FAULTS = (
    *_network("dropped", partial(_in_mode, "drop"), "silent"),
    *_network("answers lost", partial(_in_mode, "up"), "silent"),
    *_network("requests lost", partial(_in_mode, "down"), "silent"),
    *_network("refused", partial(_in_mode, "refuse"), "reset", one=(0.5, 5.0)),
    *_network("reset", _reset, one=(0.0, 0.0), all_=(0.0, 0.0)),
    *_network("delayed", _delayed),
    *_network("5 % lost", _losing_5),
    *_network("20 % lost", _losing_20),
    *_network("unplugged", _unplugged, "silent"),
    Fault(name="address moved", part="network", inject=_moved, seconds=(1.0, 10.0)),
    Fault(name="killed", part="process", inject=_killed, is_for_all=False,
          seconds=(0.0, 3.0), effect="killed"),
    Fault(name="killed again", part="process", inject=_killed, is_for_all=False,
          seconds=(0.0, 3.0), effect="killed"),
    Fault(name="all killed", part="process", inject=_killed, seconds=(0.0, 3.0),
          effect="killed"),
    Fault(name="stopped", part="process", inject=_stopped, is_for_all=False,
          seconds=(5.0, 20.0), effect="silent"),
    Fault(name="all stopped", part="process", inject=_stopped, seconds=(5.0, 20.0)),
    Fault(name="PostgreSQL crashed", part="database", inject=_database_crashed,
          seconds=(0.0, 10.0)),
    Fault(name="password changed", part="database", inject=_password_changed),
    Fault(name="right revoked", part="database", inject=_right_revoked),
    Fault(name="table locked", part="database", inject=_table_locked),
    Fault(name="ALTER behind a report", part="database",
          inject=_alter_behind_a_report),
    Fault(name="clock ahead", part="database", inject=_clock_ahead),
    Fault(name="PgBouncer killed", part="pooler", inject=_pooler_killed,
          seconds=(0.0, 10.0)),
    Fault(name="log's disk full", part="log", inject=_log_disk_full),
    Fault(name="log's reader stopped", part="log", inject=_log_reader_stopped),
)  # fmt: skip
