"""The server with its own PostgreSQL: killed, interrupted, started twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.client import Stream, messages_of, read_all
from tests.faults.crowd import last_of, opened
from tests.faults.fleet import SECRET, Server
from tests.postgres import copy_cluster, data_folder


@pytest.fixture
async def alone(
    cluster: Path, model: FakeModel, tmp_path: Path, pg_bin: Path | None
) -> AsyncIterator[Server]:
    """A server on a folder of its own, not started."""
    with data_folder() as folder:
        copy_cluster(cluster, folder)
        settings = {
            "VIVA_DATA_DIR": str(folder),
            "VIVA_JWT_SECRET": SECRET,
            "VIVA_MODEL_URL": str(model.url),
            "VIVA_MODEL_NAME": "fake",
        }
        if pg_bin is not None:
            settings["VIVA_PG_BIN"] = str(pg_bin)
        server = Server("alone", tmp_path, settings)
        try:
            yield server
        finally:
            Stream.abort_all()
            server.discard()
            await postgres_ends(folder)


def postgres_of(folder: Path) -> int | None:
    """Give the number of the PostgreSQL that runs on the folder."""
    try:
        pid = int((folder / "postgres/postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (OSError, IndexError):
        return None
    return pid


async def postgres_ends(folder: Path) -> None:
    async with asyncio.timeout(30):
        while postgres_of(folder) is not None:
            await asyncio.sleep(0.05)


def folder_of(server: Server) -> Path:
    return Path(server.settings["VIVA_DATA_DIR"])


async def test_after_kill_9_the_reply_is_closed_at_once_at_the_next_start(
    alone: Server, model: FakeModel
) -> None:
    model.scripts = [Script(tokens=1000, interval_ms=20)]
    await alone.start()
    (stream,) = await opened(alone, ["person"], "speak")
    assert postgres_of(folder_of(alone)) is not None
    await alone.kill()
    await read_all(stream)
    await postgres_ends(folder_of(alone))
    await alone.start()
    question, reply = await messages_of(alone, "person")
    assert (reply["status"], reply["finish_reason"]) == ("partial", "crashed")
    assert reply["conteudo"].startswith(stream.text)
    assert question["conteudo"] == "person: speak"


async def test_a_postgresql_that_was_killed_is_started_again_and_no_stream_ends(
    alone: Server, model: FakeModel
) -> None:
    model.scripts = [Script(tokens=100, interval_ms=20)]
    await alone.start()
    (stream,) = await opened(alone, ["person"], "speak")
    killed = postgres_of(folder_of(alone))
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await read_all(stream)
    last = last_of(stream)
    assert last is not None
    assert last.data["finish_reason"] == "stop", alone.log
    assert (await messages_of(alone, "person"))[1]["conteudo"] == stream.text
    assert postgres_of(folder_of(alone)) not in {None, killed}


async def test_ctrl_c_stores_every_reply_and_ends_postgres(
    alone: Server, model: FakeModel
) -> None:
    model.scripts = [Script(tokens=1000, interval_ms=20)]
    await alone.start()
    streams = await opened(alone, ["one", "two", "three"], "speak")
    readers = [asyncio.create_task(read_all(stream)) for stream in streams]
    os.killpg(alone.pid, signal.SIGINT)  # as a terminal does: the whole group
    assert await alone.exit_code() == 0, alone.log
    await asyncio.gather(*readers)
    assert postgres_of(folder_of(alone)) is None
    await alone.start()
    for user, stream in zip(["one", "two", "three"], streams, strict=True):
        last = last_of(stream)
        assert last is not None
        assert last.data["finish_reason"] == "shutdown"
        assert (await messages_of(alone, user))[1]["conteudo"] == stream.text


async def test_a_second_server_on_the_folder_ends_with_one_clear_line(
    alone: Server, tmp_path: Path
) -> None:
    await alone.start()
    second = Server("second", tmp_path, alone.settings)
    second.spawn()
    assert await second.exit_code() == 1
    (line,) = second.log.splitlines()
    assert line.startswith("viva-server: ")
    assert await messages_of(alone, "person") == []
