"""The clocks of the server's machine and of PostgreSQL's differ by hours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg2.extensions
import pytest

from tests.acceptance.test_commands import SECRET, command, environment
from tests.acceptance.whatsapp_site import whatsapp_site
from tests.fakes.model import FakeModel
from tests.people import add_sessions
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.store.driver.database import Database
from viva_server.store.operator import Dead, replay

DEAD = "SELECT state, error FROM viva.whatsapp_turns"


def faketime(by: str) -> dict[str, str]:
    """Give the variables under which a program's wall clock is off by so much."""
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    assert libraries, "libfaketime is missing: run .ci/packages.sh"
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME": by,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def put_ahead(url: str, by: str) -> None:
    """Have new connections to a database see its clock ahead."""
    name = psycopg2.extensions.parse_dsn(url)["dbname"]
    run_sql(url, "CREATE SCHEMA ahead")
    for clock in ("now", "clock_timestamp"):
        run_sql(
            url,
            f"CREATE FUNCTION ahead.{clock}() RETURNS timestamptz LANGUAGE sql AS"
            f" $$ SELECT pg_catalog.{clock}() + interval '{by}' $$",
        )
    run_sql(url, f"ALTER DATABASE {name} SET search_path = ahead, pg_catalog")


def run(*arguments: str, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    settings = {"VIVA_DATABASE_URL": url, "VIVA_JWT_SECRET": SECRET}
    return subprocess.run(
        command(*arguments),
        env=environment(**settings, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("by", ["+40d", "-1h"])
def test_nothing_is_purged_and_the_doctor_says_why(database_url: str, by: str) -> None:
    add_sessions(database_url, "ana", idle_days=31)
    days = {"VIVA_RETENTION_DAYS": "30"}
    refused = run("purge", url=database_url, **days, **faketime(by))
    kept = run_sql(database_url, "SELECT count(*) FROM viva.sessions")
    doctor = run("doctor", url=database_url, **faketime(by))
    done = run("purge", url=database_url, **days)

    assert refused.returncode == 1
    assert "clock" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert kept == [(1,)]
    assert "FAIL  clock" in doctor.stdout
    assert done.returncode == 0
    assert run_sql(database_url, "SELECT count(*) FROM viva.sessions") == [(0,)]


async def test_a_message_is_answered_by_a_server_whose_clock_is_ahead(
    database_url: str,
) -> None:
    async with (
        FakeModel() as model,
        whatsapp_site(database_url, model, servers=1, **faketime("+2h")) as site,
    ):
        await until(lambda: "clock" in site.servers[0].output)
        site.evolution.receive("oi")
        await site.answered()


async def test_what_is_old_by_the_databases_clock_is_a_dead_letter(
    database_url: str, database: Database
) -> None:
    put_ahead(database_url, "2 hours")
    async with (
        FakeModel() as model,
        whatsapp_site(database_url, model) as site,
    ):
        await until(lambda: "clock" in site.servers[0].output)
        site.evolution.receive("oi")
        await until(lambda: site.rows(DEAD) == [("dead", "clock")])
        assert site.evolution.sent == []
        [dead] = await database.fetch("list_dead", Dead, rows=10)
        assert (dead.state, dead.error) == ("dead", "clock")
        assert await replay(database, dead.id)
        # Not the send: defaults of columns, such as its time, do not see our clock.
        await until(lambda: site.rows(DEAD) == [("answered", None)])
