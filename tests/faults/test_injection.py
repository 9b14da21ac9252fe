"""Each fault of the campaign takes hold, and ends with its block."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg2
import pytest

from tests.fakes.model import FakeModel
from tests.faults.fleet import Server
from tests.faults.history import History
from tests.faults.injection import FAULTS, RIGHTS, TABLES
from tests.faults.site import (
    FaultyPostgres,
    Pooler,
    Site,
    is_isolated,
    namespaces,
    site_of,
)
from tests.postgres import PostgresServer, copy_cluster, data_folder

HOLD = {
    "dropped, all": "no connection",
    "answers lost, all": "no connection",
    "requests lost, all": "no connection",
    "refused, all": "no connection",
    "PostgreSQL crashed": "no connection",
    "password changed": "no connection",
    "right revoked": "no right",
    "table locked": "locked",
    "ALTER behind a report": "locked",
    "clock ahead": "ahead",
}
"""What a process meets while the fault stands."""

HOLD_ISOLATED = {"unplugged, all": "no connection", "address moved": "no connection"}


@asynccontextmanager
async def _site(
    cluster: Path, model: FakeModel, pooler: Pooler = ""
) -> AsyncIterator[Site]:
    """Give a site with one server that does not run."""
    with data_folder() as folder, data_folder() as logs:
        copy_cluster(cluster, folder)
        postgres = PostgresServer(folder, kind=FaultyPostgres)
        await postgres.start()
        try:
            with postgres.database() as dsn:
                async with site_of(postgres, dsn, model, logs, pooler) as site:
                    await site.add()
                    yield site
        finally:
            await postgres.stop()


def _met(server: Server) -> str:
    """Say what stands in the way to the database, as a process meets it."""
    url = f"{server.settings['VIVA_DATABASE_URL']} connect_timeout=2"
    try:
        with (
            closing(psycopg2.connect(url)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET lock_timeout = '200ms'")
            for table in TABLES:
                cursor.execute(f"SELECT FROM viva.{table} LIMIT 1")
            for right in RIGHTS:
                what, _, table = right.partition(" ON ")
                cursor.execute(f"SELECT has_table_privilege('{table}', '{what}')")
                if cursor.fetchone() != (True,):
                    return "no right"
            cursor.execute("SELECT extract(epoch FROM clock_timestamp()) - %s > 30",
                           [time.time()])  # fmt: skip
            return "ahead" if cursor.fetchone() == (True,) else "nothing"
    except psycopg2.errors.InsufficientPrivilege:
        return "no right"
    except psycopg2.errors.LockNotAvailable:
        return "locked"
    except psycopg2.OperationalError:
        return "no connection"


async def _hold(site: Site, expected: dict[str, str]) -> None:
    faults = {fault.name: fault for fault in FAULTS if fault.fits(site)}
    for name, met in expected.items():
        async with faults[name].inject(site, History(), site.servers):
            assert await asyncio.to_thread(_met, *site.servers) == met, name
        assert await asyncio.to_thread(_met, *site.servers) == "nothing", name


async def test_what_cuts_the_way_to_the_database_does_so_and_ends(
    cluster: Path, model: FakeModel
) -> None:
    async with _site(cluster, model) as site:
        await _hold(site, HOLD)


async def test_a_pooler_is_killed_and_comes_back(
    cluster: Path, model: FakeModel
) -> None:
    async with _site(cluster, model, "session") as site:
        await _hold(site, {"PgBouncer killed": "no connection"})


async def test_what_needs_namespaces_takes_hold_and_ends(
    request: pytest.FixtureRequest, cluster: Path, model: FakeModel
) -> None:
    if not is_isolated():
        if not (spaces := namespaces()):
            pytest.skip("needs root, unshare and namespaces")
        lo_up = 'ip link set lo up && exec "$@"'
        pytest_ = [sys.executable, "-m", "pytest", "-q", request.node.nodeid]
        command = [*spaces, "sh", "-c", lo_up, "sh", *pytest_]
        await asyncio.to_thread(subprocess.run, command, check=True)
        return
    async with _site(cluster, model) as site:
        await _hold(site, HOLD_ISOLATED)
        disk = site.filler
        assert disk is not None
        fault = next(fault for fault in FAULTS if fault.name == "log's disk full")
        async with fault.inject(site, History(), site.servers):
            with pytest.raises(OSError, match="No space left"):
                disk.with_name("another").write_bytes(bytes(2**16))
        disk.with_name("another").write_bytes(bytes(2**16))
