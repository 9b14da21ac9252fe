"""However a client leaves a host, and however the host stops, no reply is lost.

A host may run with `handler_cancellation` on or off; aiohttp tells of a client that
left in another way in each.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from tests.acceptance.leaving import WAYS, BareClient, Way
from tests.chat_host import (
    HOST,
    Person,
    client,
    eventually,
    serving,
    settings,
)
from tests.dictation import Dictation, saying
from tests.host_app import GRACE_SECONDS, RESOURCE, host_app
from tests.postgres import run_sql
from tests.programs import free_port, program
from viva_server import SERVICES, create_app

BASE = "/assistant/api/v1"
STREAM = f"{BASE}/viva/chat/stream"

both_cancellations = pytest.mark.parametrize("cancel", [False, True])
both_ways_in = pytest.mark.parametrize("sub_app", [False, True])


def counted(chars: int) -> str:
    """Give the first characters of what the host's responder says."""
    return "".join(f"{number} " for number in range(chars))[:chars]


async def leave_and_look(port: int, person: Person, user: str, way: Way) -> None:
    """Leave in mid-stream, and see that nothing is lost and the reply ends."""
    reading = await BareClient.asking(port, STREAM, user)
    await reading.read_events(4)
    message_id = reading.header("Viva-Message-Id")
    assert reading.header("Content-Location") == f"{STREAM}/{message_id}"
    await reading.leave(way)
    snapshot = await person.snapshot()
    live = snapshot["messages"][-1]
    assert live["conteudo"].startswith(reading.text)
    assert (live["status"], snapshot["active_reply"]["message_id"]) == (
        "streaming",
        message_id,
    )
    snapshot = await eventually(
        person.snapshot, lambda seen: seen["active_reply"] is None
    )
    stored = snapshot["messages"][-1]
    assert (stored["status"], stored["finish_reason"]) == ("partial", "disconnected")
    # It went on for the time of grace, without a gap.
    assert len(stored["conteudo"]) > len(live["conteudo"])
    assert stored["conteudo"] == counted(len(stored["conteudo"]))


@both_cancellations
@both_ways_in
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_loses_nothing(
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    *,
    cancel: bool,
    sub_app: bool,
    way: Way,
) -> None:
    config = settings(database_url, disconnect_grace_seconds=GRACE_SECONDS)
    app = host_app(config, sub_app=sub_app)
    async with serving(app, handler_cancellation=cancel) as host:
        port = URL(host.origin).port
        assert port is not None
        await leave_and_look(port, host.person("ana", BASE), "ana", way)
    gc.collect()  # a task whose exception nobody retrieved says so when it dies
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == []


@both_cancellations
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_in_silence_is_noticed(
    database_url: str, *, cancel: bool, way: Way
) -> None:
    """Nothing is written then, so no write can fail and tell of it."""
    dictation = Dictation()
    app = create_app(
        settings(database_url, disconnect_grace_seconds=0.3), respond=dictation
    )
    async with serving(app, handler_cancellation=cancel) as host:
        port = int(host.origin.rpartition(":")[2])
        reading = await BareClient.asking(port, "/api/v1/viva/chat/stream", "ana")
        reply = await dictation.begun()
        reply.say("um ")
        await reading.read_events(2)
        await reading.leave(way)
        await asyncio.wait_for(reply.closed.wait(), 10)
        snapshot = await eventually(
            host.ana.snapshot, lambda seen: seen["active_reply"] is None
        )
    stored = snapshot["messages"][-1]
    assert (stored["conteudo"], stored["finish_reason"]) == ("um ", "disconnected")


@both_cancellations
async def test_a_reader_whose_reply_has_ended_is_given_back(
    database_url: str, *, cancel: bool
) -> None:
    app = create_app(settings(database_url), respond=saying("oi"))
    async with serving(app, handler_cancellation=cancel) as host:
        async with host.session.post(
            f"{host.ana.base}/viva/chat/stream",
            json={"mensagem": "oi"},
            headers=host.ana.headers,
        ) as response:
            await response.read()
        # The same connection takes the next request, so nothing tells of a leaving.
        assert (await host.ana.ask("de novo")).status == 200
        assert app[SERVICES].runtime.presence.readers == 0


async def check_process(database_url: str, port: int, *arguments: str) -> None:
    """Run a host as a process; leave it in every way, then end it in mid-stream."""
    environment = {
        "VIVA_DATABASE_URL": database_url,
        "VIVA_DISCONNECT_GRACE_SECONDS": str(GRACE_SECONDS),
    }
    async with (
        program(*arguments, port=port, environment=environment) as running,
        client() as session,
    ):
        async with asyncio.TaskGroup() as group:
            for way in WAYS:
                person = Person(session, running.origin + BASE, way)
                group.create_task(leave_and_look(port, person, way, way))
        reading = await BareClient.asking(port, STREAM, "bia")
        await reading.read_events(4)
        stop = asyncio.create_task(running.stopped())
        await reading.read_to_end()
        assert await stop == 0
    done = reading.events[-1].data
    assert (done["status"], done["finish_reason"]) == ("partial", "shutdown")
    stored = run_sql(
        database_url,
        "SELECT content, status FROM viva.messages WHERE finish_reason = 'shutdown'",
    )
    assert stored == [(reading.text, "partial")]
    for bad in ("Traceback", "never retrieved", "ERROR", "Warning"):
        assert bad not in _ours(running.output), running.output


def _ours(output: str) -> str:
    """Leave out aiohttp's own warning in its worker for gunicorn (Python 3.12 on)."""
    lines = output.splitlines(keepends=True)
    return "".join(line for line in lines if "aiohttp/worker.py" not in line)


@both_cancellations
@both_ways_in
async def test_under_run_app_nothing_is_lost_and_sigterm_stores_what_is_live(
    database_url: str, *, cancel: bool, sub_app: bool
) -> None:
    port = free_port()
    arguments = ["-m", "tests.host_app", "--port", str(port)]
    arguments += ["--cancel"] if cancel else []
    arguments += ["--sub-app"] if sub_app else []
    await check_process(database_url, port, *arguments)


async def test_under_gunicorn_nothing_is_lost_and_sigterm_stores_what_is_live(
    database_url: str,
) -> None:
    port = free_port()
    arguments = ["-m", "gunicorn", "tests.host_app:from_environment()"]
    arguments += ["--worker-class", "aiohttp.GunicornWebWorker", "--workers", "2"]
    arguments += ["--bind", f"{HOST}:{port}"]
    await check_process(database_url, port, *arguments)


@both_cancellations
@both_ways_in
async def test_a_hosts_shutdown_stores_replies_before_its_resources_close(
    database_url: str, *, cancel: bool, sub_app: bool
) -> None:
    app = host_app(settings(database_url), sub_app=sub_app)
    streaming: list[Any] = []

    async def look(_: web.Application) -> AsyncIterator[None]:
        yield
        streaming.extend(
            run_sql(
                database_url,
                "SELECT FROM viva.messages WHERE status = 'streaming'",
            )
        )

    app.cleanup_ctx.append(look)
    runner = web.AppRunner(app, handler_cancellation=cancel, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    readings = [await BareClient.asking(site.port, STREAM, user) for user in "abc"]
    for reading in readings:
        await reading.read_events(3)
    cleanup = asyncio.create_task(runner.cleanup())
    await asyncio.gather(*(reading.read_to_end() for reading in readings))
    # aiohttp's own shutdown_timeout, here its default of 60 s, is not used up.
    await asyncio.wait_for(cleanup, 10)
    for reading in readings:
        done = reading.events[-1].data
        assert (done["status"], done["finish_reason"]) == ("partial", "shutdown")
        assert done["chars"] == len(reading.text)
    assert streaming == []
    assert app[RESOURCE].replies_cut_short == 0
    rows = run_sql(
        database_url,
        "SELECT content FROM viva.messages WHERE finish_reason = 'shutdown'",
    )
    assert sorted(rows) == sorted((reading.text,) for reading in readings)
    assert run_sql(database_url, "SELECT FROM viva.processes") == []
