"""Scenarios: a failover, a purge in a cut, a process of the version before."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.crowd import Crowd, judge
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.proxy import Mode, Proxy
from tests.faults.site import FaultyPostgres
from tests.faults.talk import dump
from tests.postgres import PostgresServer, data_folder, run_sql

Figures = dict[str, Any]

VERSION_BEFORE = "e7d5818"
_ROOT = Path(__file__).parents[2]
_OLD_SESSIONS = 500
_CUT_SECONDS = 5.0


def _nobody_died(dsn: str) -> None:
    dead = "SELECT version, pid FROM viva.processes WHERE dead_at IS NOT NULL"
    assert run_sql(dsn, dead) == [], "somebody was declared dead"


def _ends(dsn: str) -> Counter[str | None]:
    return Counter(m.finish_reason for m in dump(dsn) if m.role == "assistant")


async def standby_promoted(
    postgres: PostgresServer, model: FakeModel, folder: Path, *, after: float = 20.0
) -> Figures:
    """The primary ends, a synchronous standby is promoted: every reply is whole."""
    model.scripts = [Script(tokens=300, interval_ms=100)]
    history = History()
    with postgres.database() as dsn, data_folder() as other:
        standby = await _standby_of(postgres, other)
        hosts = [psycopg2.extensions.parse_dsn(d)["host"]
                 for d in (dsn, standby.dsn("postgres"))]  # fmt: skip
        name = psycopg2.extensions.parse_dsn(dsn)["dbname"]
        way = f"host={','.join(hosts)} user=viva dbname={name}"
        fleet = Fleet(dsn, model, folder)
        try:
            for _ in range(2):
                await fleet.run(fleet.add(armed=(), prefix=(), database_url=way))
            async with Crowd(
                history, lambda: fleet.running, 40, questions=1, within_seconds=180.0
            ) as crowd:
                await crowd.all_have_text()
                await postgres.crash()
                await asyncio.sleep(after)
                fleet.dsn = standby.dsn(name)
                run_sql(fleet.dsn, "SELECT pg_promote()")
            verdict = await judge(fleet, model, history, least_done=40)
            _nobody_died(fleet.dsn)
            ends = _ends(fleet.dsn)
            assert ends == {"stop": 40}, ends
        finally:
            fleet.close()
            await standby.stop()
            await postgres.start()
            run_sql(postgres.admin_dsn, "ALTER SYSTEM RESET synchronous_standby_names")
            run_sql(postgres.admin_dsn, "SELECT pg_reload_conf()")
    return {"after_s": after, "cuts": sum(t.cuts for t in crowd.talks),
            **verdict.figures}  # fmt: skip


async def _standby_of(postgres: PostgresServer, folder: Path) -> PostgresServer:
    """Start a synchronous standby of the server in another folder."""
    server = postgres.server
    programs = server._programs
    if not (programs / "pg_basebackup").exists():
        programs = Path(shutil.which("pg_basebackup") or "pg_basebackup").parent
    cluster = folder / "postgres"
    source = psycopg2.extensions.parse_dsn(postgres.admin_dsn)
    command: list[str | Path] = [programs / "pg_basebackup", "-D", cluster, "-R"]
    command += ["-c", "fast", "-h", source["host"], "-U", source["user"]]
    server._account.own(folder)
    await asyncio.to_thread(
        subprocess.run,
        server._account.command(command, 9),
        check=True,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
    )
    os.chown(folder, os.geteuid(), os.getegid())
    standby = PostgresServer(folder, fast_unsafe=False, kind=FaultyPostgres)
    await standby.start()
    run_sql(postgres.admin_dsn, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    run_sql(postgres.admin_dsn, "SELECT pg_reload_conf()")
    return standby


async def purged_in_a_cut(fleet: Fleet, model: FakeModel) -> Figures:
    """A purge loses its way to the database twice; sessions go whole or not at all."""
    model.scripts = [Script(tokens=60, interval_ms=50)]
    history = History()
    await fleet.start(2)
    modes: tuple[Mode, ...] = ("drop", "refuse", "pass")
    exits = []
    async with Proxy(fleet.dsn) as proxy, Crowd(history, lambda: fleet.running, 20):
        for mode in modes:
            _add_old_sessions(fleet.dsn)
            exits.append(await _purged_through(proxy, mode, fleet.dsn))
            assert run_sql(fleet.dsn, _HALF_PURGED) == [], "purged in part"
    assert exits[-1] == 0, "the purge does not go on after a cut"
    assert _old_sessions(fleet.dsn) == 0
    verdict = await judge(fleet, model, history, least_done=20)
    _nobody_died(fleet.dsn)
    return {"exits": exits, **verdict.figures}


async def _purged_through(proxy: Proxy, mode: Mode, dsn: str) -> int:
    """Purge, with the way in this mode for 5 s from the first removal; its exit."""
    before, purging = _old_sessions(dsn), await _purge(proxy.dsn)
    try:
        while purging.returncode is None and _old_sessions(dsn) == before:
            await asyncio.sleep(0.02)
        assert _old_sessions(dsn) > 0, "the purge was over before the cut"
        await proxy.set(mode)
        await asyncio.sleep(_CUT_SECONDS)
        await proxy.set("pass")
        return await asyncio.wait_for(purging.wait(), 120)
    finally:
        if purging.returncode is None:
            purging.kill()


_HALF_PURGED = """
SELECT session_id FROM viva.messages
WHERE session_id IN (SELECT id FROM viva.sessions WHERE person = 'long gone')
GROUP BY session_id HAVING count(*) <> 2
"""


def _add_old_sessions(dsn: str) -> None:
    run_sql(
        dsn,
        f"""
        INSERT INTO viva.sessions
            (id, channel, person, message_count, created_at, updated_at)
        SELECT gen_random_uuid(), 'web', 'long gone', 2, now() - interval '60 days',
            now() - interval '40 days' FROM generate_series(1, {_OLD_SESSIONS});
        INSERT INTO viva.messages (session_id, seq, id, role, content, status,
            finish_reason)
        SELECT s.id, n, gen_random_uuid(), CASE n WHEN 1 THEN 'user' ELSE 'assistant'
            END, 'what was said', 'complete', CASE n WHEN 2 THEN 'stop' END
        FROM viva.sessions AS s, generate_series(1, 2) AS n
        WHERE NOT EXISTS (SELECT FROM viva.messages AS m WHERE m.session_id = s.id)
            AND s.person = 'long gone';
        """,
    )


def _old_sessions(dsn: str) -> int:
    count = "SELECT count(*) FROM viva.sessions WHERE person = 'long gone'"
    return int(run_sql(dsn, count)[0][0])


async def _purge(dsn: str) -> asyncio.subprocess.Process:
    own = {"VIVA_DATABASE_URL": dsn, "VIVA_RETENTION_DAYS": "30"}
    own |= {"VIVA_JWT_SECRET": "a secret of the fault tests that is long enough"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "viva_server", "purge"),
        cwd=_ROOT,
        env={**os.environ, **own},
        stderr=asyncio.subprocess.DEVNULL,
    )


def lay_out(commit: str, folder: Path) -> Path:
    """Write the package of a commit to a folder; give what PYTHONPATH has to name.

    Raises:
        AssertionError: the history is not here.
    """
    archive = subprocess.run(
        ["git", "archive", commit, "src", "sql"],
        cwd=_ROOT,
        capture_output=True,
        check=False,
    )
    assert archive.returncode == 0, f"no commit {commit} here: {archive.stderr!r}"
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    (folder / "src/viva_server/sql").symlink_to(folder / "sql")
    source = folder / "src"
    where = subprocess.run(
        [sys.executable, "-c", "import viva_server; print(viva_server.__file__)"],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(source)), where.stdout
    return source


async def two_versions(
    postgres: PostgresServer, model: FakeModel, folder: Path, *, seconds: float = 60.0
) -> Figures:
    """A process of the version before, and one of this: nobody is declared dead."""
    model.scripts = [Script(tokens=60, interval_ms=50)]
    history = History()
    source = await asyncio.to_thread(lay_out, VERSION_BEFORE, folder)
    with postgres.database("template0") as dsn, closing(Fleet(dsn, model, folder)) as f:
        before = f.add()
        before.settings["PYTHONPATH"] = str(source)
        await f.run(before)
        await f.start(1)
        async with Crowd(history, lambda: f.running, 40):
            await asyncio.sleep(seconds)
        verdict = await judge(f, model, history, least_done=40)
        _nobody_died(dsn)
        ends = _ends(dsn)
        assert set(ends) == {"stop"}, ends
    return {"beside_each_other_s": seconds, **verdict.figures}
