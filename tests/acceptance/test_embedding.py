"""viva_server in a host's application: what is the host's stays the host's."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest
from aiohttp import web

from tests.chat_host import (
    HOST,
    Host,
    Person,
    chat_host,
    serving,
    settings,
)
from tests.dictation import Dictation, saying
from tests.faults.heavy import history
from tests.faults.large_bodies import MIB, heavy_processes_of
from tests.host_app import RESOURCE, host_app
from tests.postgres import PostgresServer
from tests.programs import free_port
from viva_server import SERVICES, AuthError, Identity, create_app, setup

BASE = "/assistant/api/v1"


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
        (lambda _: Identity("ana"), 200),
        (lambda _: Identity("a\0"), 401),
        (lambda _: None, 401),
        (lambda _: "", 401),
        (lambda _: "a" * 256, 401),
        (lambda _: "a\0", 401),
        (lambda _: "\ud800", 401),
        (lambda _: 7, 500),
        (lambda request: request["missing"], 500),
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


@pytest.mark.parametrize(
    ("scopes", "status"), [({"admin"}, 200), ({"other"}, 403), (set(), 403)]
)
async def test_a_hosts_own_check_says_who_is_an_operator(
    database_url: str, scopes: set[str], status: int
) -> None:
    app = web.Application()
    identity = Identity("ana", frozenset(scopes))
    setup(app, settings(database_url), authenticate=lambda _: identity)
    async with serving(app) as host:
        nobody = host.person("x")
        nobody.headers = {}
        assert (await nobody.get("/viva/operator/overview")).status == status
        assert (await nobody.get("/viva/chat/sessions")).status == 200


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


async def test_a_hosts_cleanup_ends_the_processes_of_heavy_bodies(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("oi"), webhook_open=True) as host:
        answer = await host.person("evolution").request(
            "POST", "/webhook/evolution", data=history(MIB)
        )
        assert answer.status == 200
        assert heavy_processes_of(os.getpid())
    assert not heavy_processes_of(os.getpid())
