"""export, erase and purge as an operator runs them, beside a server and without one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_commands import (
    SECRET,
    command,
    environment,
    run,
    serving,
)
from tests.chat_host import eventually, settings
from tests.chat_host import serving as hosting
from tests.dictation import Dictation
from tests.people import PHONE, TABLES, add_sessions, count, dump, receive, written
from tests.postgres import data_folder, run_sql
from viva_server import SERVICES, create_app
from viva_server.services import Retention
from viva_server.store.driver.database import Database
from viva_server.store.embedded.server import running_dsn
from viva_server.store.people import Person, person_hmac


def given(database_url: str, **more: str) -> dict[str, str]:
    return {"VIVA_DATABASE_URL": database_url, "VIVA_JWT_SECRET": SECRET, **more}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_export_says_whose_it_is_and_how_much(database_url: str) -> None:
    add_sessions(database_url, "ana", messages=3)

    result = run("export", "--user", "ana", settings=given(database_url))

    assert result.returncode == 0, result.stderr
    header, *records, end = lines(result.stdout)
    assert (header["type"], header["channel"], header["person"]) == (
        "header",
        "web",
        "ana",
    )
    assert end == {
        "type": "end",
        "records": len(records),
        "sessions": 1,
        "messages": 3,
        "idempotency_keys": 1,
        "whatsapp_chats": 0,
        "whatsapp_messages": 0,
        "whatsapp_turns": 0,
        "whatsapp_sends": 0,
        "deliveries": 0,
    }
    assert "3 messages" in result.stderr


async def test_an_export_of_whatsapp_has_the_deliveries(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi")])

    result = run("export", "--whatsapp", f"loja/{PHONE}", settings=given(database_url))

    header, chat, message, delivery, end = lines(result.stdout)
    assert header["channel"] == "whatsapp"
    assert (chat["type"], message["text"]) == ("whatsapp_chat", "oi")
    assert delivery["form"]["text"] == "oi"
    assert end["deliveries"] == 1


def test_an_export_file_is_new_and_for_its_owner_alone(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "ana.jsonl"
    arguments = ("export", "--user", "ana", "--output", str(file))

    first = run(*arguments, settings=given(database_url))
    second = run(*arguments, settings=given(database_url))

    assert (first.returncode, second.returncode) == (0, 2)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [record["type"] for record in lines(file.read_text())] == ["header", "end"]


def peak(*arguments: str, database_url: str) -> int:
    """Run a command and give the most memory that it held, in KiB."""
    with Path(os.devnull).open("wb") as nowhere:
        process = subprocess.Popen(
            command(*arguments),
            env=environment(**given(database_url)),
            stdout=nowhere,
            stderr=nowhere,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_maxrss


def test_an_export_holds_a_page_in_memory_and_not_all(database_url: str) -> None:
    few = peak("export", "--user", "bia", database_url=database_url)
    add_sessions(database_url, "ana", messages=12_000, text="x" * 10_000)
    many = peak("export", "--user", "ana", database_url=database_url)

    assert many - few < 40 * 1024  # of 120 MB


@pytest.mark.parametrize("name", ["export", "erase"])
@pytest.mark.parametrize(
    "who",
    [
        (),
        ("--user", ""),
        ("--user", "ana", "--whatsapp", "loja/5511988887777"),
        ("--whatsapp", "5511988887777"),
        ("--whatsapp", "loja/a phone"),
    ],
)
def test_one_person_is_named_or_nothing_happens(
    name: str, who: tuple[str, ...]
) -> None:
    result = run(name, *who)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_without_a_terminal_an_erasure_needs_a_yes(database_url: str) -> None:
    add_sessions(database_url, "ana")

    refused = run("erase", "--user", "ana", settings=given(database_url))
    assert (refused.returncode, count(database_url, "sessions")) == (2, 1)

    done = run("erase", "--user", "ana", "--yes", settings=given(database_url))
    assert (done.returncode, count(database_url, "sessions")) == (0, 0)
    assert done.stderr == "erased 1 sessions, 2 messages, 0 deliveries\n"


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_asks_and_shows_a_bar(
    database_url: str, answer: str, left: int
) -> None:
    add_sessions(database_url, "ana")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("erase", "--user", "ana"),
        env=environment(**given(database_url)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = read_terminal(ours)
    status = process.wait(timeout=60)

    assert count(database_url, "sessions") == left
    assert status == left  # 1: not done
    assert "Erase all of ana (web)" in shown
    assert ("100%" in shown) == (left == 0)


def read_terminal(descriptor: int) -> str:
    shown = b""
    try:
        while chunk := os.read(descriptor, 4096):
            shown += chunk
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(descriptor)
    return shown.decode()


def test_an_erasure_that_was_killed_is_finished_by_the_next(database_url: str) -> None:
    add_sessions(database_url, "ana", sessions=3000, messages=4, text="canary")
    add_sessions(database_url, "bia", text="of bia")
    erase = ("erase", "--user", "ana", "--yes")
    process = subprocess.Popen(
        command(*erase),
        env=environment(**given(database_url)),
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while count(database_url, "sessions") > 2950 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    left = count(database_url, "sessions", "person = 'ana'")
    assert 0 < left <= 2950
    # Each that is left is whole.
    assert count(database_url, "messages") == 4 * left + 2

    assert run(*erase, settings=given(database_url)).returncode == 0
    text = dump(database_url)
    assert "canary" not in text
    assert "of bia" in text
    records = run_sql(
        database_url, "SELECT finished_at IS NULL FROM viva.audit ORDER BY started_at"
    )
    assert records == [(True,), (False,)]


async def test_a_live_reply_is_stopped_and_its_reader_is_told(
    database_url: str,
) -> None:
    dictation = Dictation()
    app = create_app(settings(database_url), respond=dictation)
    async with hosting(app) as host, host.ana.stream("oi") as stream:
        reply = await dictation.begun()
        reply.say("canary")
        await stream.event()
        await stream.read_text(6)
        erasing = await start_erasing(database_url)
        end = (await stream.rest())[-1]
        assert await erasing.wait() == 0
        snapshot = await host.ana.snapshot()

    assert (end.data["done"], end.data["finish_reason"]) == (True, "stopped")
    assert snapshot["session_id"] is None
    assert all(count(database_url, table) == 0 for table in TABLES)
    assert "canary" not in dump(database_url)


async def start_erasing(database_url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command("erase", "--user", "ana", "--yes"),
        env=environment(**given(database_url)),
    )


def test_beside_a_server_its_embedded_database_is_used_else_it_is_started() -> None:
    with data_folder() as folder:
        data = {"VIVA_DATA_DIR": str(folder / "data")}
        none = run("export", "--user", "ana", settings=data)
        with serving(**data):
            dsn = running_dsn(folder / "data")
            assert dsn is not None
            add_sessions(dsn, "ana")
            beside = run("export", "--user", "ana", settings=data)
        assert running_dsn(folder / "data") is None
        alone = run("export", "--user", "ana", settings=data)
        erased = run("erase", "--user", "ana", "--yes", settings=data)
        purged = run("purge", settings=data)
        assert running_dsn(folder / "data") is None

    assert none.returncode == 78
    assert "no database" in none.stderr
    assert lines(beside.stdout)[1:] == lines(alone.stdout)[1:]
    assert lines(alone.stdout)[-1]["messages"] == 2
    assert erased.stderr.startswith("erased 1 sessions")
    assert purged.returncode == 0


def test_what_was_done_is_recorded_without_a_name(database_url: str) -> None:
    add_sessions(database_url, "ana")
    for arguments in (
        ("export", "--user", "ana"),
        ("erase", "--user", "ana", "--yes"),
        ("purge",),
    ):
        run(*arguments, settings=given(database_url))

    columns = "action, person_hmac, counts ->> 'sessions'"
    found = run_sql(
        database_url, f"SELECT {columns} FROM viva.audit ORDER BY started_at"
    )
    who = person_hmac(Person("web", "ana"), SECRET)
    assert [(action, bytes(w) if w else None, n) for action, w, n in found] == [
        ("export", who, "1"),
        ("erase", who, "1"),
        ("purge", None, "0"),
    ]
    assert "ana" not in str(found)


def test_a_purge_says_what_it_removed(database_url: str) -> None:
    add_sessions(database_url, "ana", idle_days=31)
    add_sessions(database_url, "ana")

    result = run("purge", settings=given(database_url, VIVA_RETENTION_DAYS="30"))

    assert result.stderr.startswith("purged 1 sessions, 2 messages, ")
    assert count(database_url, "sessions") == 1


def test_processes_says_who_was_declared_dead_by_whom(database_url: str) -> None:
    living, dead = (
        "01a23185-0f3a-7648-97e9-7ad8ec39bb40",
        "01a23184-b6cf-77b8-aac6-5339fd24d1c9",
    )
    run_sql(
        database_url,
        "INSERT INTO viva.processes (id, lock_key, host, pid, version) VALUES"
        f" ('{living}', 1, 'vps-1', 11, '0.1.0'), ('{dead}', 2, 'vps-2', 22, '0.1.0');"
        "UPDATE viva.processes SET dead_at = now(), verdict = 'fast',"
        f" dead_by = '{living}' WHERE pid = 22",
    )

    lines = run("processes", settings=given(database_url)).stdout.splitlines()

    assert len(lines) == 3
    assert lines[0].startswith("id ")
    (one,) = [line for line in lines if line.startswith(living)]
    assert "vps-1" in one
    assert "beat " in one
    (other,) = [line for line in lines if line.startswith(dead)]
    assert other.endswith(f"(fast, by {living})")

    as_json = run("processes", "--json", settings=given(database_url)).stdout
    verdicts = {p["id"]: p["verdict"] for p in map(json.loads, as_json.splitlines())}
    assert verdicts == {living: None, dead: "fast"}


@pytest.mark.parametrize("name", ["export", "erase", "purge", "processes"])
def test_a_database_that_is_away_is_one_line(name: str) -> None:
    who = () if name in {"purge", "processes"} else ("--user", "ana")
    yes = ("--yes",) if name == "erase" else ()
    url = "postgresql://nobody:sesame@127.0.0.1:1/x"

    result = run(name, *who, *yes, settings=given(url))

    assert result.returncode == 69
    assert result.stderr.count("\n") == 1
    assert "sesame" not in result.stderr


def test_an_old_schema_is_one_line(database_url: str) -> None:
    run_sql(database_url, "DROP SCHEMA viva CASCADE")

    result = run("export", "--user", "ana", settings=given(database_url))

    assert result.returncode == 1
    assert "run viva-server migrate" in result.stderr


async def test_the_server_purges_by_itself(database_url: str) -> None:
    app = create_app(settings(database_url, retention_days=30.0))
    app[SERVICES].retention = Retention(
        settings(database_url, retention_days=30.0),
        app[SERVICES].database,
        first_seconds=0,
    )
    add_sessions(database_url, "ana", idle_days=31)

    async def left() -> int:
        return count(database_url, "sessions")

    async with hosting(app):
        await eventually(left, lambda number: number == 0)
