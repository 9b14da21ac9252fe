"""What every answer has, whatever happens, in our server and in a host's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from tests.raw_http import PATIENCE_SECONDS, connect, exchange, serving
from viva_server.api.edge import Edge, Handler
from viva_server.api.problems import Problem
from viva_server.api.request import read_json
from viva_server.errors import AuthError, StoreUnavailableError

ORIGIN = "https://chat.example"
edge = Edge(cors_origins=[ORIGIN])


async def echo(request: web.Request) -> web.Response:
    return web.json_response(await read_json(request, 200))


async def optional(request: web.Request) -> web.Response:
    return web.json_response(await read_json(request, optional=True))


async def fail(request: web.Request) -> web.Response:
    raise {
        "auth": AuthError("secret"),
        "store": StoreUnavailableError("secret"),
        "problem": Problem("reply_in_progress", "Wait.", message_id="m"),
        "bug": ValueError("secret"),
        "network": ConnectionRefusedError("secret"),
        "timeout": TimeoutError("secret"),
        "http": web.HTTPGone(text="secret"),
    }[request.match_info["kind"]]


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=edge.headers(request))
    await response.prepare(request)
    if request.match_info["when"] == "later":
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(0.05)
    if request.match_info["when"] != "never":
        raise ValueError("in mid-stream")
    await response.write_eof(b"end")
    return response


async def redirect(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


def add_routes(app: web.Application) -> None:
    for method, path, handler in (
        ("POST", "/echo", echo),
        ("POST", "/optional", optional),
        ("GET", "/fail/{kind}", fail),
        ("GET", "/stream/{when}", stream),
        ("GET", "/redirect", redirect),
    ):
        wrapped = edge.wrap(handler)
        app.router.add_route(method, path, wrapped, expect_handler=edge.expect)
        app.router.add_route("OPTIONS", path, edge.wrap(edge.preflight))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application(middlewares=[edge.middleware()])
    add_routes(app)
    async with serving(app, lingering_seconds=0.2) as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


@pytest.mark.parametrize(
    ("kind", "status", "code", "header"),
    [
        ("auth", 401, "unauthorized", "WWW-Authenticate"),
        ("store", 503, "unavailable", "Retry-After"),
        ("problem", 409, "reply_in_progress", None),
        ("bug", 500, "internal_error", None),
        ("network", 500, "internal_error", None),
        ("timeout", 500, "internal_error", None),
        ("http", 410, "http_410", None),
    ],
)
async def test_every_error_is_a_problem_that_tells_nothing(
    client: ClientSession, kind: str, status: int, code: str, header: str | None
) -> None:
    async with client.get(f"/fail/{kind}") as answer:
        body = await answer.json(content_type="application/problem+json")
        text = await answer.text()

    assert (answer.status, body["status"], body["code"]) == (status, status, code)
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert header is None or header in answer.headers
    assert "secret" not in text
    assert "Error" not in text.replace("Internal Server Error", "")


async def test_an_unexpected_error_is_logged_with_the_id_that_the_client_got(
    client: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.get("/fail/bug") as answer:
        pass

    [record] = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert answer.headers["X-Request-Id"] in record.getMessage()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/echo/", 404, "not_found"),
        ("GET", "/echo", 405, "method_not_allowed"),
        ("DELETE", "/fail/x", 405, "method_not_allowed"),
        ("OPTIONS", "/nowhere", 404, "not_found"),
    ],
)
async def test_what_the_router_refuses_is_a_problem_too(
    client: ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with client.request(method, path) as answer:
        body = await answer.json(content_type="application/problem+json")

    assert (answer.status, body["code"]) == (status, code)
    assert ("Allow" in answer.headers) is (status == 405)
    assert body["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("given", ["a", "a" * 64, "0190a5c4-7d3e_x.1"])
async def test_a_safe_request_id_is_repeated(client: ClientSession, given: str) -> None:
    async with client.get("/fail/auth", headers={"X-Request-Id": given}) as answer:
        assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a" * 65, "a b", "é", "a;b", "<script>"])
async def test_another_request_id_is_replaced(
    client: ClientSession, given: str
) -> None:
    async with client.get("/fail/auth", headers={"X-Request-Id": given}) as answer:
        made = answer.headers["X-Request-Id"]

    assert made != given
    assert len(made) == 32


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, b'{"a":1}', 200),
        ({"Content-Type": "Application/JSON; charset=UTF-8"}, b'{"a":1}', 200),
        ({"Content-Type": 'application/json; charset="utf-8"'}, b'{"a":1}', 200),
        ({"Content-Encoding": "identity", "Content-Type": "application/json"}, b"{}",
         200),
        ({"Content-Type": ""}, b"{}", 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415),
        ({"Content-Type": "application/merge-patch+json"}, b"{}", 415),
        ({"Content-Type": "application/json, text/plain"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=foo"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=utf-16"}, b"{}", 415),
        ({"Content-Type": "application/json"}, b"", 400),
        ({"Content-Type": "application/json"}, b"[]", 400),
        ({"Content-Type": "application/json"}, b'{"a":"\xff"}', 400),
        ({"Content-Type": "application/json"}, b" " * 201, 413),
    ],
    ids=lambda value: str(value)[-50:],
)  # fmt: skip
async def test_a_body_passes_the_gate_or_is_refused(
    client: ClientSession, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with client.post("/echo", headers=headers, data=body) as answer:
        assert answer.status == status
        if status >= 400:
            assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("header", [b"", b"Content-Type: application/json\r\n" * 2])
async def test_no_content_type_or_two_are_refused(port: int, header: bytes) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: viva.test\r\nContent-Length: 2\r\n"
    answers = await exchange(port, head + header + b"\r\n{}")

    assert answers[0].status in ({415} if not header else {400, 415})


async def test_an_optional_body_may_be_missing(client: ClientSession) -> None:
    async with client.post("/optional") as answer:
        assert await answer.json() == {}
    async with client.post("/optional", json={"a": 1}) as answer:
        assert await answer.json() == {"a": 1}
    async with client.post("/optional", data=b"x") as answer:
        assert answer.status == 415


@pytest.mark.parametrize("when", ["at-once", "later"])
async def test_a_stream_that_fails_is_cut_without_a_second_answer(
    port: int, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect(port)
    path = f"/stream/{when}".encode()
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: viva.test\r\n\r\n")
    received = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while part := await reader.read(1000):
                received += part
        except ConnectionError:
            pass
    writer.close()

    assert received.count(b"HTTP/1.1") == 1
    assert not received.endswith(b"0\r\n\r\n")
    errors = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert [line.name for line in errors] == ["viva_server.api"]


async def test_a_stream_carries_the_edges_headers(client: ClientSession) -> None:
    async with client.get("/stream/never", headers={"Origin": ORIGIN}) as answer:
        assert await answer.text() == "end"

    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "X-Request-Id" in answer.headers


async def test_a_listed_origin_may_ask(client: ClientSession) -> None:
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with client.options("/echo", headers=asks) as answer:
        headers = answer.headers

    assert answer.status == 204
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Idempotency-Key" in headers["Access-Control-Allow-Headers"]
    assert "Last-Event-ID" in headers["Access-Control-Allow-Headers"]
    assert "Origin" in headers["Vary"]


async def test_a_listed_origin_sees_our_headers_also_on_a_problem(
    client: ClientSession,
) -> None:
    async with client.get("/fail/store", headers={"Origin": ORIGIN}) as answer:
        exposed = answer.headers["Access-Control-Expose-Headers"]

    for name in ("Viva-Message-Id", "Content-Location", "Retry-After", "X-Request-Id"):
        assert name in exposed


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ORIGIN + ".evil"])
async def test_another_origin_is_allowed_nothing(
    client: ClientSession, origin: str
) -> None:
    for method, path in (("OPTIONS", "/echo"), ("GET", "/fail/auth")):
        async with client.request(method, path, headers={"Origin": origin}) as answer:
            assert not [name for name in answer.headers if "Access-Control" in name]
            assert answer.headers["Vary"] == "Origin"


async def test_another_expectation_is_refused_as_a_problem(port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: viva.test\r\nConnection: close\r\n"
    answers = await exchange(port, head + b"Expect: coffee\r\n\r\n")

    assert [answer.status for answer in answers] == [417]
    assert answers[0].json()["code"] == "expectation_failed"


async def test_the_access_log_has_the_route_and_no_secret(
    client: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Authorization": "Bearer secret", "User-Agent": "secret"}
    with caplog.at_level(logging.INFO, "viva_server.access"):
        async with client.get("/fail/auth?token=secret", headers=headers) as answer:
            await answer.read()
        async with client.get("/secret%0Aforged", headers=headers) as other:
            await other.read()

    first, second = [r.getMessage() for r in caplog.records if "access" in r.name]
    assert first.startswith("GET /fail/{kind} 401 ")
    assert first.endswith(f"id={answer.headers['X-Request-Id']} from=127.0.0.1")
    assert second.startswith("GET - 404 ")
    assert "secret" not in caplog.text
    assert "forged" not in caplog.text


async def test_a_redirect_stays_one(
    client: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "viva_server.access"):
        async with client.get("/redirect", allow_redirects=False) as answer:
            assert answer.status == 302

    assert " 302 " in caplog.text


async def test_the_server_does_not_tell_its_versions(client: ClientSession) -> None:
    for path in ("/fail/auth", "/stream/never", "/nowhere"):
        async with client.get(path) as answer:
            assert answer.headers["Server"] == "viva-server"


async def test_a_host_keeps_its_own_answers() -> None:
    seen: list[str] = []

    @web.middleware
    async def reads_bodies(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append(await request.text())
        return await handler(request)

    host = web.Application(middlewares=[reads_bodies])
    add_routes(host)
    runner = web.AppRunner(host, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession(f"http://127.0.0.1:{site.port}") as client:
        async with client.post("/echo", json={"a": 1}) as answer:
            assert await answer.json() == {"a": 1}
        async with client.get("/fail/store") as answer:
            assert answer.content_type == "application/problem+json"
        async with client.get("/nowhere") as answer:
            assert answer.content_type == "text/plain"
            assert "X-Request-Id" not in answer.headers
    await runner.cleanup()

    assert seen == ['{"a": 1}', "", ""]


async def test_a_sub_application_answers_problems_below_its_prefix() -> None:
    sub = web.Application(middlewares=[edge.middleware()])
    add_routes(sub)
    host = web.Application()
    host.add_subapp("/viva", sub)
    async with (
        serving(host) as port,
        ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        async with client.get("/viva/nowhere") as answer:
            assert answer.content_type == "application/problem+json"
        async with client.get("/viva/fail/auth") as answer:
            assert answer.status == 401
        async with client.get("/nowhere") as answer:
            assert answer.content_type == "text/plain"


async def test_the_edge_goes_round_a_request_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = web.Application(middlewares=[edge.middleware()])
    app.router.add_get("/", edge.wrap(edge.wrap(redirect)))
    async with (
        serving(app) as port,
        ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        with caplog.at_level(logging.INFO, "viva_server.access"):
            async with client.get("/", allow_redirects=False) as answer:
                assert answer.status == 302

    assert len(caplog.messages) == 1
