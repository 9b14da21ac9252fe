"""The files of docs/deploy that no proxy reads: systemd's, PgBouncer's, settings."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from tests.chat_host import Person, client
from tests.documents import blocks_of
from tests.postgres import data_folder, run_sql
from tests.programs import ROOT, Program, free_port, program
from tests.proxies import CONFIGURATIONS, substituted
from tests.streams import text_of
from tests.waiting import until
from viva_server.config import Config

UNIT = "viva-server.service"


def settings() -> dict[str, str]:
    lines = (CONFIGURATIONS / "viva.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and line[0] != "#")


def installed(folder: Path) -> Path:
    """Install the unit as the document says, with a program that is there."""
    # By a link: the checkout may live in a path with a space, which systemd splits.
    program = folder / "viva-server"
    program.symlink_to(Path(sys.executable).with_name("viva-server"))
    changes = {"/opt/viva/bin/viva-server": str(program)}
    unit = folder / "viva-server@.service"
    unit.write_text(substituted(UNIT, changes), "utf-8")
    return unit


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "run .ci/packages.sh"
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    instance = str(installed(tmp_path)).replace("@", "@8081")
    verified = analyze("verify", "--man=no", instance)

    said = [line for line in verified.stderr.splitlines() if "viva" in line]
    assert (said, verified.returncode) == ([], 0)


def test_the_unit_exposes_little(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    judged = analyze("security", "--offline=yes", "--threshold=20", unit)

    assert judged.returncode == 0, judged.stdout


def test_systemd_waits_for_longer_than_the_server_drains() -> None:
    unit = (CONFIGURATIONS / UNIT).read_text("utf-8")
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    config = Config.from_env(settings())

    assert int(seconds) > config.drain_seconds + config.shutdown_seconds + 1


def test_the_file_of_settings_is_accepted() -> None:
    config = Config.from_env(settings())

    assert [str(each) for each in config.trusted_proxies] == ["127.0.0.1/32"]
    assert config.drain_seconds > 0


@asynccontextmanager
async def pgbouncer(dsn: str) -> AsyncIterator[tuple[Program, str]]:
    """Run PgBouncer with the document's configuration; give the way through it."""
    path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None, "pgbouncer is missing: run .ci/packages.sh"
    parts = parse_dsn(dsn)
    with data_folder() as folder:
        port = free_port()
        server = f"host={parts['host']} port={parts.get('port', '5432')}"
        changes = {
            "host=127.0.0.1 port=5432 dbname=viva": (
                f"{server} dbname={parts['dbname']} user={parts['user']}"
            ),
            "listen_port = 6432": f"listen_port = {port}\nunix_socket_dir =",
            "scram-sha-256": "any",
        }
        file = folder / "pgbouncer.ini"
        file.write_text(substituted("pgbouncer.ini", changes), "utf-8")
        # It refuses to be root.
        account = ["-u", "postgres"] if os.geteuid() == 0 else []
        process = await asyncio.create_subprocess_exec(
            path,
            *account,
            str(file),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        running = Program(process, port)
        try:
            await running.listening()
            yield running, f"postgresql://{parts['user']}@127.0.0.1:{port}/viva"
        finally:
            await running.close()


async def test_a_process_works_through_pgbouncer_in_session_mode(
    database_url: str,
) -> None:
    async with pgbouncer(database_url) as (bouncer, url), client() as session:
        port = free_port()
        environment = {"VIVA_DATABASE_URL": url, "VIVA_PORT": str(port)}
        serve = ("-m", "viva_server", "serve")
        async with program(*serve, port=port, environment=environment) as running:
            ana = Person(session, running.origin + "/api/v1")
            async with ana.stream("bom dia") as stream:
                events = await stream.rest()
            held = (
                "SELECT count(*) FROM pg_locks AS l"
                " INNER JOIN pg_database AS d ON d.oid = l.database"
                " WHERE l.locktype = 'advisory' AND d.datname = current_database()"
            )
            locks = run_sql(database_url, held)[0][0]
            await running.stopped(signal.SIGKILL)
        # In transaction mode it stays: the dead process would seem to live.
        await until(lambda: run_sql(database_url, held)[0][0] == 0)

    assert events[-1].data["status"] == "complete"
    assert "VIVA" in text_of(events)
    assert locks == 1
    assert "ERROR" not in bouncer.output


async def test_gunicorn_as_the_document_starts_it(database_url: str) -> None:
    [command] = [
        block.code
        for block in blocks_of(ROOT / "docs/deploy.md")
        if block.code.startswith("gunicorn ")
    ]
    port = free_port()
    arguments = shlex.split(command.replace("\\\n", "").replace("8081", str(port)))
    environment = {"VIVA_DATABASE_URL": database_url}
    async with (
        program("-m", *arguments, port=port, environment=environment) as running,
        client() as session,
    ):
        ana = Person(session, running.origin + "/api/v1")
        answer = await ana.ask("bom dia")
        assert await running.stopped() == 0

    assert answer.json["status"] == "complete"
    assert "Traceback" not in running.output


@pytest.mark.parametrize(
    "name", ["nginx.conf", "haproxy.cfg", UNIT, "pgbouncer.ini", "viva.env"]
)
def test_every_file_is_named_in_the_document(name: str) -> None:
    document = (CONFIGURATIONS.parent / "deploy.md").read_text("utf-8")
    assert f"](deploy/{name})" in document
