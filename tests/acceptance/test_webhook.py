"""What Evolution gets answered, and what is stored of what it sends."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import jwt
import pytest

from tests.acceptance.webhook_server import BASE, WebhookClient, webhook_server
from tests.postgres import run_sql
from tests.unit.whatsapp.samples import SAMPLES, tail_of
from tests.waiting import until
from viva_server.config import Config
from viva_server.errors import StoreUnavailableError
from viva_server.store.db import Database
from viva_server.whatsapp.event_table import EVENTS

SECRET = "canary-secret-1f3a"
LOCKED = Config(webhook_secret=("another-secret", SECRET), evolution_api_key="unused")
DUMMY = {"data": {"key": "dummy"}}
MIB = 2**20


@pytest.fixture
async def door(database: Database) -> AsyncIterator[WebhookClient]:
    """A door without a secret."""
    async with webhook_server(database, Config()) as client:
        yield client


@pytest.fixture
async def locked(database: Database) -> AsyncIterator[WebhookClient]:
    """A door with a secret."""
    async with webhook_server(database, LOCKED) as client:
        yield client


def rows(url: str, columns: str = "event") -> list[tuple[Any, ...]]:
    return run_sql(url, f"SELECT {columns} FROM viva.inbox ORDER BY id")


def received(event: str, *, duplicate: bool = False) -> dict[str, Any]:
    return {
        "status": "received",
        "processed": True,
        "event": event,
        "duplicate": duplicate,
    }


class Down:
    """A database that cannot be reached, or does not answer."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        if self._hangs:
            await asyncio.sleep(60)
        raise StoreUnavailableError


async def test_the_dummy_check_is_answered_as_received(door: WebhookClient) -> None:
    status, answer, _ = await door.post("/messages-upsert", DUMMY)
    assert (status, answer) == (200, received("messages.upsert"))


@pytest.mark.parametrize("tail", ["", "/", "/messages-upsert"])
async def test_a_person_who_opens_the_url_sees_that_it_is_a_webhook(
    door: WebhookClient, tail: str
) -> None:
    expected = {"status": "webhook ativo", "service": "evolution"}
    assert await door.get(tail) == (200, expected)
    assert await door.head(tail) == 200


async def test_every_event_is_taken_at_every_form_of_its_path(
    door: WebhookClient, database_url: str
) -> None:
    """Without `event` in the body, so that only the URL tells it."""
    forms = {
        "plain": "/{path}",
        "slash": "//{path}",
        "end": "/{path}/",
        "query": "?token=abc/{path}",
        "slash_query": "/?token=abc//{path}",
        "upper": "/{upper}",
        "config": "/{config}",
        "dotted": "/{name}",
        "percent": "/{percent}",
    }
    for event in EVENTS:
        words = {
            "path": event.path,
            "upper": event.path.upper(),
            "config": event.config,
            "name": event.name,
            "percent": event.path.replace("-", "%2D").replace("a", "%61"),
        }
        for name, form in forms.items():
            body = {"instance": name, "data": None}
            status, answer, _ = await door.post(form.format(**words), body)
            assert (status, answer) == (200, received(event.name)), (name, event)
    assert len(rows(database_url)) == len(EVENTS) * len(forms)


@pytest.mark.parametrize(
    ("tail", "event"),
    [
        ("/foo-bar", "foo-bar"),
        ("/foo/bar/", "foo/bar"),
        ("//%C3%A9", "é"),
        ("/%00%0A..%2F", "\ufffd\n.."),
        ("/..%2f..%2fetc", "../../etc"),
        ("/" + "x" * 4000, "x" * 255),
        ("", "unknown"),
        ("?token=first/second", "unknown"),
    ],
)
async def test_an_unknown_path_is_stored_as_it_is(
    door: WebhookClient, database_url: str, tail: str, event: str
) -> None:
    status, answer, _ = await door.post(tail, {"data": {}})
    assert (status, answer) == (200, received(event))
    assert rows(database_url, "event, is_known") == [(event, False)]


async def test_every_sample_of_every_version_is_stored_once(
    door: WebhookClient, database_url: str
) -> None:
    for name, sample in SAMPLES.items():
        body = {**sample["body"], "instance": name}
        headers = sample["headers"]
        event = sample["expect"]["event"]
        first = await door.post(tail_of(sample), body, headers=headers)
        assert first[:2] == (200, received(event)), name
        again = await door.post(tail_of(sample), body, headers=headers)
        assert again[:2] == (200, received(event, duplicate=True)), name
    assert rows(database_url, "instance, kind, deliveries") == [
        (name, sample["expect"]["kind"], 2) for name, sample in SAMPLES.items()
    ]


async def test_fifty_deliveries_at_once_are_one_row(
    door: WebhookClient, database_url: str
) -> None:
    body = {"event": "messages.upsert", "instance": "a", "data": {"key": {"id": "X1"}}}
    answers = await asyncio.gather(*(door.post("", body) for _ in range(50)))
    assert [status for status, _, _ in answers] == [200] * 50
    assert sum(not answer["duplicate"] for _, answer, _ in answers) == 1
    assert rows(database_url, "deliveries") == [(50,)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{",
        b"a=1",
        b'{"a":NaN}',
        b"\xff\xfe{",
        b'{"a":' + b"[" * 100_000,
    ],
)
async def test_what_is_no_json_object_is_400(
    door: WebhookClient, database_url: str, data: bytes
) -> None:
    status, answer, headers = await door.post("/call", data=data)
    assert (status, answer["code"]) == (400, "invalid_json")
    assert headers["Content-Type"].startswith("application/problem+json")
    assert rows(database_url) == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain; charset=utf-16", "application/xml", "x", ""],
)
async def test_json_is_known_by_its_content(
    door: WebhookClient, content_type: str
) -> None:
    data = b'{"event":"call","data":"\xc3\xa9"}'
    headers = {"Content-Type": content_type}
    status, answer, _ = await door.post("", data=data, headers=headers)
    assert (status, answer) == (200, received("call"))


async def test_a_compressed_body_is_400(door: WebhookClient) -> None:
    data = gzip.compress(b'{"event":"call"}')
    headers = {"Content-Encoding": "gzip"}
    status, answer, _ = await door.post("", data=data, headers=headers)
    assert (status, answer["code"]) == (400, "content_encoding")


@pytest.mark.parametrize(
    "data",
    [
        b'{"event":"call","a":"\\u0000","\\u0000":"\\ud800"}',
        b'{"event":"call","event":"call"}',
        b'{"event":"call","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"event":"call","a":' + b"[" * 600 + b"]" * 600 + b"}",
        b'{"event":"call","a":' + b"7" * 5000 + b',"b":1e999}',
        b'\xef\xbb\xbf{"event":"call"}',
    ],
    ids=["nul", "twice", "deep", "deeper than jsonb", "numbers", "bom"],
)
async def test_odd_json_is_stored(
    door: WebhookClient, database_url: str, data: bytes
) -> None:
    status, answer, _ = await door.post("", data=data)
    assert (status, answer) == (200, received("call"))
    assert rows(database_url) == [("call",)]


async def test_ten_mebibytes_of_media_leave_a_hash(
    door: WebhookClient, database_url: str
) -> None:
    media = base64.b64encode(b"x" * (10 * MIB)).decode()
    body = {"event": "messages.upsert", "data": {"message": {"base64": media}}}
    status, _, _ = await door.post("", body)
    assert status == 200
    columns = "body->'data'->'message'->'base64'->>'size', pg_column_size(body) < 2000"
    assert rows(database_url, columns) == [(str(10 * MIB), True)]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_ignored_with_200(
    database: Database, database_url: str, chunked: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    data: Any = chunks() if chunked else b" " * (40 * 65536)
    async with webhook_server(database, Config(), max_body_bytes=MIB) as door:
        status, answer, _ = await door.post("/call", data=data)
        assert (status, answer) == (
            200,
            {"status": "received", "processed": False, "ignored": "too large"},
        )
        # The bytes are given back and the connection still serves.
        assert (await door.post("", {"event": "call"}))[0] == 200
    assert rows(database_url) == [("call",)]


async def test_too_many_bytes_at_once_are_503_and_all_right_again_after(
    database: Database,
) -> None:
    release = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"event":"call","a":"' + b"x" * (700 * 1024)
        await release.wait()
        yield b'"}'

    settings = {"max_bytes_in_flight": MIB}
    async with webhook_server(database, Config(), **settings) as door:
        first = asyncio.create_task(door.post("", data=slow()))
        await until(lambda: door.bytes_in_flight >= 700 * 1024)
        second = await door.post("", {"event": "call", "a": "y" * (700 * 1024)})
        assert (second[0], second[2]["Retry-After"]) == (503, "5")
        release.set()
        assert (await first)[0] == 200
        third = await door.post("", {"event": "call", "a": "y" * (700 * 1024)})
        assert third[0] == 200
        assert door.bytes_in_flight == 0


async def test_a_body_that_comes_too_slowly_is_503(database: Database) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with webhook_server(database, Config(), body_seconds=0.1) as door:
        status, _, headers = await door.post("", data=never())
        assert (status, "Retry-After" in headers) == (503, True)
        assert door.bytes_in_flight == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_without_the_database_the_answer_is_503_in_time(hangs: bool) -> None:
    settings = {"answer_seconds": 0.1, "awaited_seconds": 0.1}
    async with webhook_server(Down(hangs=hangs), Config(), **settings) as door:
        status, answer, headers = await door.post("", {"event": "call"})
        assert (status, answer["code"]) == (503, "unavailable")
        assert headers["Retry-After"] == "5"
        for event in ("messages.edited", "remove.instance", "logout.instance"):
            status, answer, _ = await door.post("", {"event": event})
            assert (status, answer) == (200, received(event))
        assert door.waiting >= 3


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(password: str) -> dict[str, str]:
    pair = base64.b64encode(f"evolution:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def minted(age: int) -> str:
    """Evolution's token, whose retries come up to 34 minutes later."""
    at = int(time.time()) - age
    claims = {"iat": at, "exp": at + 600, "app": "evolution", "action": "webhook"}
    return jwt.encode(claims, SECRET.ljust(32, "\0"), algorithm="HS256")


WAYS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "bearer": ("/call", bearer(SECRET), {}),
    "basic": ("/call", basic(SECRET), {}),
    "apikey": ("/call", {"apikey": SECRET}, {}),
    "query": (f"/call?token={SECRET}", {}, {}),
    "query and tail": (f"?token={SECRET}/call", {}, {}),
    "body": ("/call", {}, {"apikey": SECRET}),
    "token": ("/call", bearer(minted(0)), {}),
    "token of a retry": ("/call", bearer(minted(34 * 60)), {}),
    "the other secret": ("/call", {"apikey": "another-secret"}, {}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_secret_opens_in_each_way_and_is_never_stored(
    locked: WebhookClient,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    caplog.set_level(logging.DEBUG, "viva_server")
    tail, headers, body = WAYS[way]
    data = {"text": f"my secret is {SECRET}", "instanceToken": "canary-token"}
    full = {**body, "data": data, "destination": f"https://u:canary-pass@h?t={SECRET}"}
    status, answer, _ = await locked.post(tail, full, headers=headers)
    assert (status, answer) == (200, received("call"))
    assert rows(database_url, "trusted") == [(True,)]
    stored = str(run_sql(database_url, "SELECT CAST(i AS text) FROM viva.inbox i"))
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("viva_server")]
    for text in (stored, str(ours), str(answer)):
        assert "canary" not in text
        assert headers.get("Authorization", "canary") not in text


@pytest.mark.parametrize(
    ("tail", "headers", "body"),
    [
        ("/call", {}, {}),
        ("/call", {}, {"apikey": "wrong"}),
        ("/call", {}, {"apikey": None}),
        ("/call", {}, {"data": {"apikey": SECRET}}),
        ("/call", bearer("wrong"), {"apikey": SECRET}),
        ("/call", bearer(minted(41 * 60)), {}),
        ("/call", basic("wrong"), {}),
        ("/call", {"apikey": "wrong"}, {}),
        ("/call?token=wrong", {}, {"apikey": SECRET}),
        ("?token=wrong/call", {}, {}),
        (f"/{SECRET}", {}, {}),
    ],
)
async def test_without_the_secret_it_is_401_and_nothing_is_stored(
    locked: WebhookClient,
    database_url: str,
    tail: str,
    headers: dict[str, str],
    body: dict[str, Any],
) -> None:
    status, answer, answered = await locked.post(tail, body, headers=headers)
    assert (status, answer["code"]) == (401, "wrong_secret")
    assert answered["WWW-Authenticate"] == "Bearer"
    assert rows(database_url) == []


async def test_without_the_secret_what_is_no_json_is_401(locked: WebhookClient) -> None:
    assert (await locked.post("", data=b"{"))[0] == 401
    assert (await locked.post("", data=b"{", headers={"apikey": SECRET}))[0] == 400


async def test_a_wrong_secret_is_answered_before_the_body(
    locked: WebhookClient,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with asyncio.timeout(15):
        status, _, _ = await locked.post("", data=never(), headers=bearer("wrong"))
    assert status == 401


@pytest.mark.parametrize("is_open", [False, True])
async def test_without_a_secret_events_are_stored_but_trusted_only_when_open(
    database: Database, database_url: str, is_open: bool
) -> None:
    async with webhook_server(database, Config(webhook_open=is_open)) as door:
        status, _, _ = await door.post("/call", {}, headers=bearer("whatever"))
    assert status == 200
    assert rows(database_url, "trusted") == [(is_open,)]


async def test_a_client_that_leaves_after_its_body_leaves_a_row(
    door: WebhookClient, database_url: str
) -> None:
    """Many at once, each cut off as soon as its request is sent."""
    reader_writers = []
    for number in range(20):
        body = json.dumps({"event": "call", "data": {"id": number}}).encode()
        head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        _, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(head.encode() + body)
        await writer.drain()
        reader_writers.append(writer)
    for writer in reader_writers:
        writer.close()
    await until(lambda: len(rows(database_url)) == 20)


async def test_a_body_that_breaks_off_leaves_nothing(
    door: WebhookClient, database_url: str
) -> None:
    _, writer = await asyncio.open_connection(door.host, door.port)
    head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
    writer.write(head.encode() + b'{"event":"call"}')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await door.post("", {"event": "labels.edit"}))[0] == 200
    await until(lambda: door.bytes_in_flight == 0)
    assert rows(database_url) == [("labels.edit",)]


def history(count: int) -> bytes:
    row = {"key": {"id": "x"}, "message": {"conversation": "x" * 200}}
    return json.dumps({"event": "messages.set", "data": [row] * count}).encode()


async def test_a_large_body_does_not_hold_up_the_others(
    door: WebhookClient, database_url: str
) -> None:
    first = asyncio.create_task(door.post("", data=history(15_000)))
    others = 0
    while not first.done():
        assert (await door.post("", {"event": "call"}))[0] == 200
        others += 1
    assert (await first)[:2] == (200, received("messages.set"))
    assert others > 3
    columns = "form->>'count', jsonb_array_length(body->'data')"
    condition = "WHERE event = 'messages.set'"
    stored = run_sql(database_url, f"SELECT {columns} FROM viva.inbox {condition}")
    assert stored == [("15000", 15_000)]


async def test_a_very_large_body_leaves_its_normal_form_and_a_hash(
    door: WebhookClient, database_url: str
) -> None:
    status, _, _ = await door.post("", data=history(40_000))
    assert status == 200
    columns = "form->>'count', body->>'removed', length(body->>'sha256')"
    assert rows(database_url, columns) == [("40000", "body", 64)]
