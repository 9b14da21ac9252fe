"""What the server refuses, how it says so, and who it shows nothing to."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.chat_host import SECRET, Answer, Host, chat_host
from tests.dictation import Dictation, saying
from viva_server.auth import JwtAuth

UNKNOWN = "01890000-0000-7000-8000-000000000000"

CHAT_ROUTES = [
    ("POST", "/viva/chat"),
    ("POST", "/viva/chat/stream"),
    ("GET", f"/viva/chat/stream/{UNKNOWN}"),
    ("POST", f"/viva/chat/stream/{UNKNOWN}/stop"),
    ("GET", "/viva/chat/snapshot"),
    ("GET", "/viva/chat/sessions"),
    ("POST", "/viva/chat/session/new"),
    ("DELETE", f"/viva/chat/sessions/{UNKNOWN}"),
]


def is_problem(answer: Answer, status: int, code: str | None = None) -> bool:
    """Whether an answer is a whole problem of RFC 9457, and tells no secrets."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json
    assert body.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    text = answer.body.decode()
    assert not [
        word for word in ("Error(", "Traceback", "SELECT", ".py") if word in text
    ]
    return code is None or body["code"] == code


@pytest.mark.parametrize(("method", "path"), CHAT_ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer x.y.z",
        "Basic YTpi",
        "Bearer " + JwtAuth(["another secret, also of 32 bytes"]).issue("ana"),
        "Bearer " + JwtAuth(["another secret, also of 32 bytes"]).issue("ana") + "é",
    ],
)
async def test_a_request_without_a_valid_token_is_401(
    shared: Host, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    anybody = shared.person("x")
    anybody.headers = headers
    body: dict[str, Any] = {"json": {"mensagem": "oi"}} if method == "POST" else {}
    answer = await anybody.request(method, path, **body)
    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_an_expired_token_is_401(shared: Host) -> None:
    old = shared.person("x")
    issued = JwtAuth([SECRET]).issue("x", 1, now=1_000_000)
    old.headers = {"Authorization": f"Bearer {issued}"}
    assert is_problem(await old.get("/viva/chat/snapshot"), 401, "unauthorized")


@pytest.mark.parametrize("whose", ["bia's", "nobody's", "none"])
async def test_what_is_not_a_persons_own_is_404_everywhere(
    database_url: str, whose: str
) -> None:
    async with chat_host(database_url, saying("segredo")) as host:
        asked = await host.person("bia").ask("oi")
        session, message, user_message = {
            "bia's": (
                asked.json["session_id"],
                asked.json["message_id"],
                asked.json["user_message_id"],
            ),
            "nobody's": (UNKNOWN, UNKNOWN, UNKNOWN),
            "none": ("x%00y", "%F0%9F%98%80", "..%2f"),
        }[whose]
        ana = host.ana
        await ana.ask("ana has a session of her own")
        before = (await host.person("bia").snapshot())["messages"]
        answers = [
            await ana.ask("oi", session_id=session),
            await ana.post(
                "/viva/chat/stream", {"mensagem": "oi", "session_id": session}
            ),
            await ana.get(f"/viva/chat/stream/{message}"),
            await ana.get(f"/viva/chat/stream/{message}?after={message}:end"),
            await ana.get(f"/viva/chat/stream/{user_message}"),
            await ana.post(f"/viva/chat/stream/{message}/stop"),
            await ana.post(f"/viva/chat/stream/{user_message}/stop"),
            await ana.get(f"/viva/chat/snapshot?session_id={session}"),
            await ana.request("DELETE", f"/viva/chat/sessions/{session}"),
        ]
        after = (await host.person("bia").snapshot())["messages"]
        own_sessions = (await ana.get("/viva/chat/sessions")).json["total"]
    assert [answer.status for answer in answers] == [404] * len(answers)
    assert [answer.json["code"] for answer in answers] == [
        "session_not_found",
        "session_not_found",
        *["message_not_found"] * 5,
        "session_not_found",
        "session_not_found",
    ]
    assert all(is_problem(answer, 404) for answer in answers)
    assert not [answer for answer in answers if b"segredo" in answer.body]
    assert before == after
    assert own_sessions == 1


async def test_a_users_own_message_is_no_reply_to_resume_or_stop(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("oi")) as host:
        user_message = (await host.ana.ask("oi")).json["user_message_id"]
        resumed = await host.ana.get(f"/viva/chat/stream/{user_message}")
        stopped = await host.ana.post(f"/viva/chat/stream/{user_message}/stop")
    assert is_problem(resumed, 404)
    assert is_problem(stopped, 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/mensagem"),
        ({"mensagem": ""}, "/mensagem"),
        ({"mensagem": " \n\t\u2003"}, "/mensagem"),
        ({"mensagem": 1}, "/mensagem"),
        ({"mensagem": "a" * 32_001}, "/mensagem"),
        ({"mensagem": "a", "modo": "m" * 33}, "/modo"),
        ({"mensagem": "a", "contexto": "x"}, "/contexto"),
        ({"mensagem": "a", "session_id": 1}, "/session_id"),
    ],
)
@pytest.mark.parametrize("path", ["/viva/chat", "/viva/chat/stream"])
async def test_a_body_that_cannot_be_taken_is_422_with_a_pointer(
    shared: Host, path: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await shared.ana.post(path, body)
    assert is_problem(answer, 422, "validation_error")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


async def test_the_longest_message_is_taken_and_counts_code_points(
    shared: Host,
) -> None:
    answer = await shared.person("long").ask("😀" * 32_000)
    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"oi"',
        b"{",
        b'{"mensagem":"oi"',
        b'{"mensagem":"\xff"}',
        b'\xef\xbb\xbf{"mensagem":"oi"}',
        b'{"mensagem":"oi","mensagem":"oi"}',
        b'{"mensagem":"\\u0000"}',
        b'{"mensagem":"\\ud800"}',
        b'{"mensagem":"oi","x":NaN}',
        b'{"mensagem":"oi","x":' + b"9" * 5000 + b"}",
        b'{"mensagem":"oi","contexto":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_no_strict_json_is_400(shared: Host, body: bytes) -> None:
    answer = await shared.ana.request(
        "POST",
        "/viva/chat",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    assert is_problem(answer, 400)


@pytest.mark.parametrize("key", ["", "é", "a" * 256, "a\tb"])
async def test_a_bad_idempotency_key_is_400(shared: Host, key: str) -> None:
    answer = await shared.ana.post(
        "/viva/chat", {"mensagem": "oi"}, headers={"Idempotency-Key": key}
    )
    assert answer.status == 400
    assert answer.json["code"] == "bad_idempotency_key"


async def test_a_key_may_be_any_printable_ascii(shared: Host) -> None:
    key = {"Idempotency-Key": "!" + "~ a" * 84 + "xy"}
    answer = await shared.person("key").post(
        "/viva/chat", {"mensagem": "oi"}, headers=key
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [("live_replies_per_user", 429, "too_many_replies"), ("live_replies", 503, None)],
)
async def test_too_many_live_replies_are_refused_with_a_time(
    database_url: str, limit: str, status: int, code: str | None
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation, **{limit: 2}) as host:
        async with asyncio.TaskGroup() as group:

            async def live(session_id: str) -> str:
                async with host.ana.stream("oi", session_id=session_id) as stream:
                    events = [await stream.event(), *await stream.rest()]
                    return str(events[-1].data["status"])

            async def new_session() -> str:
                answer = await host.ana.post("/viva/chat/session/new")
                return str(answer.json["session_id"])

            tasks = [group.create_task(live(await new_session())) for _ in range(2)]
            replies = [await dictation.begun(), await dictation.begun()]
            other = await new_session()
            refused = await host.ana.ask("mais uma", session_id=other)
            unchanged = await host.ana.snapshot(session_id=other)
            for reply in replies:
                reply.say("x")
                reply.end()
        accepted = asyncio.create_task(host.ana.ask("agora", session_id=other))
        last = await dictation.begun()
        last.say("sim")
        last.end()
        assert (await accepted).status == 200
    assert is_problem(refused, status, code)
    assert int(refused.headers["Retry-After"]) > 0
    assert unchanged["messages"] == []
    assert [task.result() for task in tasks] == ["complete", "complete"]


async def test_unknown_paths_and_methods_are_problems(shared: Host) -> None:
    assert is_problem(await shared.ana.get("/nada"), 404)
    refused = await shared.ana.request("PUT", "/viva/chat")
    assert is_problem(refused, 405, "method_not_allowed")
    assert refused.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("path", ["/viva/chat/snapshot", "/viva/chat/sessions"])
async def test_head_is_get_without_a_body(shared: Host, path: str) -> None:
    got = await shared.ana.get(path)
    head = await shared.ana.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert head.headers["Content-Length"] == str(len(got.body))


async def test_options_without_configured_origins_allows_nothing(shared: Host) -> None:
    origin = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"}
    answer = await shared.ana.request("OPTIONS", "/viva/chat/stream", headers=origin)
    assert answer.status == 204
    assert not [n for n in answer.headers if n.lower().startswith("access-control")]


async def test_a_configured_origin_may_ask_and_read(database_url: str) -> None:
    origin = "https://chat.example"
    async with chat_host(database_url, saying("oi"), cors_origins=(origin,)) as host:
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        anybody = host.person("x")
        anybody.headers = {}
        preflight = await anybody.request(
            "OPTIONS", "/viva/chat/stream", headers=asking
        )
        refused = await anybody.request(
            "GET", "/viva/chat/snapshot", headers={"Origin": origin}
        )
        async with host.ana.stream("oi", headers={"Origin": origin}) as stream:
            streamed = stream.headers
            await stream.rest()
        other = await host.ana.get(
            "/viva/chat/snapshot", headers={"Origin": "https://evil.example"}
        )
    assert preflight.headers["Access-Control-Allow-Origin"] == origin
    allowed = preflight.headers["Access-Control-Allow-Headers"]
    for name in ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"):
        assert name in allowed
    # A browser shows an error, too, only where this header stands.
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == origin
    assert streamed["Access-Control-Allow-Origin"] == origin
    assert "Viva-Message-Id" in streamed["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Origin" not in other.headers
    assert other.headers["Vary"] == "Origin"


async def test_health_and_readiness_need_no_token(shared: Host) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/health", "/ready"):
            async with session.get(shared.ana.base + path) as response:
                assert response.status == 200
