"""The commands as a person runs them: what they say, and how they end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.postgres import PostgresServer, data_folder
from tests.programs import run_command

SECRET = "s" * 32


def environment(**settings: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIVA_", "PG"))}
    return {**kept, **settings}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "viva_server", *arguments]


def run(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    result = run_command(*arguments, environment=environment(**(settings or {})))
    texts = result.stdout.decode(), result.stderr.decode()
    return subprocess.CompletedProcess(result.args, result.returncode, *texts)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(
    *options: str, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    process = subprocess.Popen(
        command("serve", *options),
        env=environment(VIVA_PORT=str(port), **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(base, process)
        yield base, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_until_ready(base: str, process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(process.stderr.read() if process.stderr else "")
        try:
            urllib.request.urlopen(f"{base}/ready", timeout=2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("never ready")


def get(url: str, token: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_help_names_every_command_and_where_settings_are() -> None:
    text = run("--help").stdout

    for name in (
        "serve",
        "migrate",
        "token",
        "docs/operations.md",
        "VIVA_DATABASE_URL",
    ):
        assert name in text


def test_all_problems_with_the_settings_are_told_at_once() -> None:
    result = run(
        "serve",
        settings={
            "VIVA_PORT": "eighty",
            "VIVA_MODEL_URL": "ftp://model",
            "VIVA_DATABASE_URL": "postgresql:///x",
            "VIVA_LIVE_REPLIES": "0",
        },
    )

    assert result.returncode == 78
    lines = result.stderr.splitlines()
    assert all(line.startswith("viva-server: VIVA_") for line in lines), lines
    for name in ("PORT", "MODEL_URL", "JWT_SECRET"):
        assert any(f"VIVA_{name} " in line for line in lines), lines


def test_a_link_with_a_token_is_refused_beside_a_database_of_ones_own() -> None:
    result = run(
        "serve",
        "--open-link",
        settings={"VIVA_DATABASE_URL": "postgresql:///x", "VIVA_JWT_SECRET": SECRET},
    )

    assert result.returncode == 78
    assert result.stderr.count("\n") == 1


def test_a_database_that_cannot_be_reached_ends_the_start_with_one_line() -> None:
    url = f"postgresql://nobody:sesame@127.0.0.1:{free_port()}/x"
    result = run(
        "serve", settings={"VIVA_DATABASE_URL": url, "VIVA_JWT_SECRET": SECRET}
    )

    assert result.returncode == 69
    assert result.stderr.strip().splitlines()[-1].startswith("viva-server: ")
    assert "Traceback" not in result.stderr
    assert "sesame" not in result.stderr


def test_a_taken_port_ends_the_start_with_one_line(database_url: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        result = run(
            "serve",
            settings={
                "VIVA_DATABASE_URL": database_url,
                "VIVA_JWT_SECRET": SECRET,
                "VIVA_PORT": str(taken.getsockname()[1]),
            },
        )

    assert result.returncode == 1
    assert "cannot listen on 127.0.0.1" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        admin = psycopg2.connect(url)
        admin.autocommit = True
        name = admin.info.dbname
        latin = f"{name}_latin"
        with closing(admin), admin.cursor() as cursor:
            cursor.execute(
                f"CREATE DATABASE {latin} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
                " TEMPLATE template0"
            )
            try:
                result = run(
                    "migrate",
                    settings={
                        "VIVA_DATABASE_URL": url.replace(name, latin),
                        "VIVA_JWT_SECRET": SECRET,
                    },
                )
            finally:
                cursor.execute(f"DROP DATABASE {latin} WITH (FORCE)")

    assert result.returncode == 78
    assert "UTF8" in result.stderr


def test_migrate_works_once_and_an_old_schema_is_refused_without_it(
    postgres: PostgresServer,
) -> None:
    with postgres.database(template="template0") as url:
        settings = {"VIVA_DATABASE_URL": url, "VIVA_JWT_SECRET": SECRET}
        refused = run("serve", settings={**settings, "VIVA_AUTO_MIGRATE": "0"})
        first = run("migrate", settings=settings)
        second = run("migrate", settings=settings)

    assert refused.returncode == 1
    assert "misses 0001_initial.sql" in refused.stderr.splitlines()[-1]
    assert first.stdout.startswith("applied 0001_")
    assert second.stdout == "the schema is current\n"


def test_a_token_opens_the_chat_of_its_user_only(database_url: str) -> None:
    settings = {"VIVA_DATABASE_URL": database_url, "VIVA_JWT_SECRET": SECRET}
    token = run("token", "--user", "ana", settings=settings).stdout.strip()

    with serving(**settings) as (base, _):
        status, body = get(f"{base}/api/v1/viva/chat/snapshot", token)
        refused, problem = get(f"{base}/api/v1/viva/chat/snapshot", token + "x")

    assert (status, body["session_id"]) == (200, None)
    assert (refused, problem["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_0(database_url: str, number: int) -> None:
    settings = {"VIVA_DATABASE_URL": database_url, "VIVA_JWT_SECRET": SECRET}

    with serving(**settings) as (_, process):
        process.send_signal(number)
        _, log = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Traceback" not in log


@contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """Give a pipe's two ends; it takes 4 KiB and then no more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    database_url: str,
) -> None:
    port = free_port()
    settings = {"VIVA_DATABASE_URL": database_url, "VIVA_JWT_SECRET": SECRET}
    with unread_pipe() as (reader, writer):
        process = subprocess.Popen(
            command("serve"),
            env=environment(VIVA_PORT=str(port), **settings),
            stderr=writer,
        )
        base = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(base, process)
            for _ in range(200):  # a line of the access log each
                urllib.request.urlopen(f"{base}/health", timeout=10).close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
        log = os.read(reader, 65536).decode()

    assert "Listening on" in log
    assert "Stopped" not in log


_LOGGING = """
import logging
from viva_server.commands.logs import buffered_log
from viva_server.counters import LOG
with buffered_log("INFO", max_lines=100):
    for number in range(1000):
        logging.info("line %d", number)
print(LOG.dropped_lines)
"""


def test_what_the_buffer_of_the_log_does_not_take_is_dropped_and_counted() -> None:
    run_it = [sys.executable, "-c", _LOGGING]
    with unread_pipe() as (reader, writer):
        hung = subprocess.run(
            run_it, stderr=writer, stdout=subprocess.PIPE, timeout=60, check=True
        )
        kept = os.read(reader, 65536).count(b"\n")
    read = subprocess.run(run_it, capture_output=True, timeout=60, check=True)

    assert 0 < int(hung.stdout) <= 1000 - 100
    assert 0 < kept < 1000
    told = [line for line in read.stderr.splitlines() if b"of this log" not in line]
    assert len(told) + int(read.stdout) == 1000


def test_the_link_goes_to_the_terminal_and_never_to_the_log() -> None:
    with data_folder() as folder:
        _check_the_link({"VIVA_DATA_DIR": str(folder / "with a space")})


def _check_the_link(data: dict[str, str]) -> None:
    with serving("--open-link", **data) as (base, process):
        assert process.stdout is not None
        line = process.stdout.readline()
        token = line.rpartition("#token=")[2].strip()
        status, _ = get(f"{base}/api/v1/viva/chat/snapshot", token)
        refused, _ = get(f"{base}/api/v1/viva/operator/overview", token)
        admin = run("token", "--user", "ana", "--scope", "admin", settings=data)
        admitted, _ = get(f"{base}/api/v1/viva/operator/overview", admin.stdout.strip())
        second = run("serve", settings=data)
        process.terminate()
        more, log = process.communicate(timeout=30)

    assert line.startswith(f"Abra o chat: {base}/#token=")
    assert more == "", "it is one line"
    assert (status, admitted, refused) == (200, 200, 403)
    assert token not in log
    assert process.returncode == 0
    assert second.returncode == 1
    assert "another viva-server uses" in second.stderr.splitlines()[-1]


def test_the_embedded_server_is_not_imported_where_a_database_is_given() -> None:
    program = (
        "import sys, viva_server\n"
        "from viva_server.services import Services\n"
        "from viva_server.config import Config\n"
        "Services(Config(database_url='postgresql:///x'))\n"
        "assert 'viva_server.store.embedded.server' not in sys.modules\n"
        "assert 'sqlalchemy' not in sys.modules\n"
        "Services(Config())\n"
        "assert 'viva_server.store.embedded.server' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or ") Z " in state.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{pid} is still there")
