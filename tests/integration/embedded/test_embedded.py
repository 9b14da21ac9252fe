"""The embedded PostgreSQL in one process: start, stop, recovery."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from tests.postgres import PostgresServer, is_free, run_sql
from viva_server.store.embedded.account import Account
from viva_server.store.embedded.server import EmbeddedPostgres, running_dsn


def setting(dsn: str, name: str) -> object:
    return run_sql(dsn, f"SHOW {name}")[0][0]


def facts(server: EmbeddedPostgres, file: str) -> bytes:
    """Read what the kernel says of the server's process."""
    return Path(f"/proc/{server.pid}/{file}").read_bytes()


def socket_of(server: EmbeddedPostgres) -> Path:
    return Path(parse_dsn(server.dsn)["host"], ".s.PGSQL.5432")


async def test_the_promise_rests_on_these_settings(
    folder: Path, pg_bin: Path | None
) -> None:
    server = EmbeddedPostgres(folder, pg_bin=pg_bin)
    await server.start()
    try:
        run_sql(server.dsn, "ALTER SYSTEM SET fsync = off")
        await server.stop()
        await server.start()
        found = {
            name: setting(server.dsn, name)
            for name in (
                "fsync",
                "full_page_writes",
                "synchronous_commit",
                "data_checksums",
                "server_encoding",
                "listen_addresses",
            )
        }
    finally:
        await server.stop()
    assert found == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "listen_addresses": "",
    }


async def test_only_its_own_user_reaches_the_socket(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    owner = (folder / "postgres").stat().st_uid
    for path in (folder / "run", folder / "run" / ".s.PGSQL.5432"):
        assert path.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_uid == owner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
async def test_root_gives_it_to_an_unprivileged_user(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    account = Account.choose(folder / "postgres")
    assert account.uid > 0
    # Real, effective, saved, of the file system: no way back.
    ids = "\t".join([str(account.uid)] * 4)
    assert f"Uid:\t{ids}\n".encode() in facts(server, "status")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a space", id="space"),
        pytest.param("a,comma", id="comma"),
        pytest.param("it's", id="quote"),
        pytest.param("é" * 60, id="longer than a socket's path"),
    ],
)
async def test_any_path_will_do(folder: Path, pg_bin: Path | None, name: str) -> None:
    server = EmbeddedPostgres(folder / name, pg_bin=pg_bin, fast_unsafe=True)
    await server.start()
    try:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]
        assert running_dsn(folder / name) == server.dsn
    finally:
        await server.stop()
    assert not socket_of(server).exists()


async def test_other_commands_find_the_running_server(
    new_server: EmbeddedPostgres, folder: Path
) -> None:
    assert running_dsn(folder) is None
    await new_server.start()
    assert running_dsn(folder) == new_server.dsn
    await new_server.stop()
    assert running_dsn(folder) is None


@pytest.mark.both_loops
async def test_it_stops_while_a_connection_is_open(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    with closing(psycopg2.connect(server.dsn)) as connection:
        connection.cursor().execute("SELECT 1")  # in a transaction
        await server.stop()
    assert server.pid is None
    assert is_free(folder)
    log = (folder / "postgres.log").read_text()
    assert "received immediate shutdown" not in log
    assert "database system is shut down" in log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
async def test_committed_rows_survive_a_crash(
    own_postgres: PostgresServer, number: signal.Signals
) -> None:
    dsn = own_postgres.admin_dsn
    run_sql(dsn, "CREATE TABLE kept AS SELECT 1 AS n")
    with closing(psycopg2.connect(dsn)) as connection:
        connection.cursor().execute("INSERT INTO kept VALUES (2)")  # never committed
        await own_postgres.crash(number)
        await own_postgres.start()
    assert own_postgres.admin_dsn == dsn
    assert run_sql(dsn, "SELECT n FROM kept") == [(1,)]


async def test_a_start_waits_for_children_of_a_killed_server(
    own_postgres: PostgresServer,
) -> None:
    with closing(psycopg2.connect(own_postgres.admin_dsn)) as connection:
        child = connection.info.backend_pid
        # Frozen, it cannot notice that its parent is gone.
        os.kill(child, signal.SIGSTOP)
        try:
            await own_postgres.crash(signal.SIGKILL)
            starting = asyncio.create_task(own_postgres.start())
            await asyncio.sleep(1)
            assert not starting.done()
        finally:
            os.kill(child, signal.SIGCONT)
        await starting
    assert run_sql(own_postgres.admin_dsn, "SELECT 1") == [(1,)]


async def test_the_end_of_the_server_is_noticed(server: EmbeddedPostgres) -> None:
    await server.start()
    assert server.pid is not None
    ending = asyncio.create_task(server.wait())
    os.kill(server.pid, signal.SIGKILL)
    assert await ending == -signal.SIGKILL
    assert server.pid is None


async def test_a_number_that_is_anothers_by_now_does_not_stop_the_start(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    account = Account.choose(folder / "postgres")
    stranger = sleeper(account)
    try:
        for file in (folder / "postgres/postmaster.pid", socket_lock(folder)):
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        await server.start()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def sleeper(account: Account) -> subprocess.Popen[bytes]:
    return subprocess.Popen(account.command(["/bin/sleep", "60"], signal.SIGKILL))


def socket_lock(folder: Path) -> Path:
    return folder / "run" / ".s.PGSQL.5432.lock"


async def test_an_interrupted_first_start_is_made_up_for(
    new_server: EmbeddedPostgres, folder: Path
) -> None:
    draft = folder / "postgres.new-1"
    (draft / "base").mkdir(parents=True)
    (draft / "PG_VERSION").write_text("15\n")
    await new_server.start()
    assert run_sql(new_server.dsn, "SELECT 1") == [(1,)]
    assert not draft.exists()


# A start takes at least the second in which initdb fills the folder.
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
async def test_a_cancelled_start_leaves_nothing_running(
    new_server: EmbeddedPostgres, folder: Path, seconds: float
) -> None:
    starting = asyncio.create_task(new_server.start())
    await asyncio.sleep(seconds)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert new_server.pid is None
    assert is_free(folder)
    for _ in range(600):
        # What was asked of the system in a thread is still answered.
        if not processes_on(folder):
            break
        await asyncio.sleep(0.05)
    assert processes_on(folder) == []
    await new_server.start()


def processes_on(folder: Path) -> list[bytes]:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(file.read_bytes())
    return [line for line in lines if os.fsencode(folder) in line]


async def test_what_people_write_stays_out_of_the_log(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    run_sql(server.dsn, "CREATE TABLE t (word text UNIQUE)")
    for _ in range(2):
        with suppress(psycopg2.Error):
            run_sql(server.dsn, "INSERT INTO t VALUES ('segredo')")
    log = (folder / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "segredo" not in log


async def test_postgresql_knows_none_of_our_secrets(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVA_MODEL_API_KEY", "segredo")
    monkeypatch.setenv("PGPORT", "1")
    await server.start()
    environment = facts(server, "environ")
    assert b"segredo" not in environment
    assert b"PGPORT" not in environment


async def test_a_large_log_is_set_aside(server: EmbeddedPostgres, folder: Path) -> None:
    with (folder / "postgres.log").open("wb") as file:
        file.truncate(11_000_000)
    await server.start()
    assert (folder / "postgres.log.1").stat().st_size == 11_000_000
    assert (folder / "postgres.log").stat().st_size < 100_000
