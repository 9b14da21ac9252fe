"""viva_server in a host, under real runners, however its clients leave.

A host may run with `handler_cancellation` on or off; aiohttp tells of a client that
left in another way in each. No reply may be lost on either.
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
    Host,
    Person,
    client,
    eventually,
    serving,
    settings,
)
from tests.dictation import Dictation, saying
from tests.host_app import GRACE_SECONDS, RESOURCE, host_app
from tests.postgres import PostgresServer, run_sql
from tests.programs import free_port, program
from viva_server import SERVICES, AuthError, create_app, setup

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
        assert bad not in running.output, running.output


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


async def test_the_hosts_own_things_stay_as_they_are(database_url: str) -> None:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="host")

    @web.middleware
    async def tag(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers.setdefault("X-Host", "1")
        return response

    def own(app: web.Application) -> list[Any]:
        signals = (app.on_startup, app.on_cleanup, app.on_response_prepare)
        return [list(app.middlewares), *(list(signal) for signal in signals)]

    app = web.Application(middlewares=[tag], client_max_size=10)
    app.router.add_get("/hello", hello)
    before = own(app)
    routes = len(app.router.routes())
    handlers = logging.getLogger().handlers[:]
    services = setup(app, settings(database_url), respond=saying("oi"))
    assert own(app) == before
    assert (len(app.on_shutdown), len(app.cleanup_ctx)) == (1, 1)
    assert len(app.router.routes()) > routes
    assert app[SERVICES] is services
    async with serving(app) as host:
        bare = Person(host.session, host.origin)
        hello_answer = await bare.get("/hello")
        unknown = await bare.get("/unknown")
        method = await bare.post("/hello", {})
        # The limit of the host is not ours, nor ours the host's.
        answer = await host.ana.ask("uma mensagem de mais de dez bytes")
    assert logging.getLogger().handlers == handlers
    assert (hello_answer.body, hello_answer.headers["X-Host"]) == (b"host", "1")
    assert "X-Request-Id" not in hello_answer.headers
    assert (unknown.status, unknown.body) == (404, b"404: Not Found")
    assert (method.status, method.body) == (405, b"405: Method Not Allowed")
    assert (answer.status, answer.headers["X-Host"]) == (200, "1")


async def test_a_middleware_of_the_host_sees_every_request(database_url: str) -> None:
    app = host_app(settings(database_url), sub_app=True)
    async with serving(app) as host:
        answer = await Person(host.session, host.origin).get("/hello")
        ready = await host.person("ana", BASE).get("/ready")
    assert (answer.body, ready.status) == (b"host", 200)
    assert app[RESOURCE].requests == 2


async def test_two_vivas_in_one_host_know_nothing_of_each_other(
    postgres: PostgresServer, database_url: str
) -> None:
    def both(request: web.Request) -> str:
        return request.headers.get("X-User", "")

    with postgres.database() as other_url:
        app = web.Application()
        first = setup(app, settings(database_url), respond=saying("um"), prefix="/one/")
        second = setup(
            app,
            settings(other_url),
            respond=saying("dois"),
            authenticate=both,
            prefix="/two",
        )
        app.add_subapp(
            "/three", create_app(settings(database_url), respond=saying("três"))
        )
        assert first is not second
        async with serving(app) as host:
            one, two, three = (
                Person(host.session, host.origin + prefix)
                for prefix in ("/one", "/two", "/three/api/v1")
            )
            two.headers = {"X-User": "ana"}
            asked = [await each.ask("oi") for each in (one, two, three)]
            async with two.resume(asked[1].json["message_id"]) as stream:
                location = stream.headers["Content-Location"]
                await stream.rest()
            foreign = await two.get(f"/viva/chat/stream/{asked[0].json['message_id']}")
            counts = [len((await each.snapshot())["messages"]) for each in (one, two)]
    assert [answer.json["resposta"] for answer in asked] == ["um", "dois", "três"]
    assert location == f"/two/viva/chat/stream/{asked[1].json['message_id']}"
    assert foreign.status == 404
    # The first and the third share a database, so a person and a session.
    assert asked[2].json["session_id"] == asked[0].json["session_id"]
    assert counts == [4, 2]


async def identified(host: Host, path: str = "/viva/chat/snapshot") -> int:
    async with host.session.get(host.origin + "/api/v1" + path) as response:
        assert response.content_type in {
            "application/json",
            "application/problem+json",
        }
        return response.status


async def _refuse(_: web.Request) -> str:
    raise AuthError


async def _async_user(_: web.Request) -> str:
    await asyncio.sleep(0)
    return "ana"


@pytest.mark.parametrize(
    ("authenticate", "status"),
    [
        (lambda _: "ana", 200),
        (_async_user, 200),
        (_refuse, 401),
        (lambda _: None, 401),
        (lambda _: "", 401),
        (lambda _: "a" * 256, 401),
        (lambda _: "a\0", 401),
        (lambda _: "\ud800", 401),
        (lambda _: 7, 500),
        (lambda _: {}["missing"], 500),
    ],
)
async def test_a_hosts_own_check_says_who_asks(
    database_url: str, authenticate: Any, status: int
) -> None:
    app = web.Application()
    setup(
        app,
        settings(database_url),
        respond=saying("oi"),
        authenticate=authenticate,
    )
    async with serving(app) as host:
        assert await identified(host) == status


async def test_a_hosts_responder_gets_its_own_user_ids(database_url: str) -> None:
    dictation = Dictation()
    app = web.Application()
    setup(
        app,
        settings(database_url),
        respond=dictation,
        authenticate=lambda _: "usuária 7 / x",
        prefix="",
    )
    async with serving(app) as host:
        asking = asyncio.create_task(Person(host.session, host.origin).ask("oi"))
        reply = await dictation.begun()
        reply.say("oi")
        reply.end()
        assert (await asking).status == 200
    assert reply.conversation.user_id == "usuária 7 / x"


async def test_an_application_whose_database_is_away_does_not_start() -> None:
    config = settings(f"host={HOST} port={free_port()} dbname=x user=x")
    app = create_app(config, respond=saying("oi"))
    runner = web.AppRunner(app)
    with pytest.raises(Exception, match=r".") as raised:
        await runner.setup()
    await runner.cleanup()
    assert type(raised.value).__module__ == "viva_server.errors"
