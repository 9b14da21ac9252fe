"""Large, slow and broken bodies, and a database that is away."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.acceptance.webhook_server import (
    BASE,
    WebhookClient,
    received,
    rows,
    webhook_server,
)
from tests.faults.heavy import wide
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.config import Config
from viva_server.errors import StoreUnavailableError
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies

MIB = 2**20


@pytest.fixture
async def server(database: Database) -> AsyncIterator[WebhookClient]:
    """A server without a secret."""
    async with webhook_server(database, Config()) as client:
        yield client


class Down:
    """A database that cannot be reached, or does not answer."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        if self._hangs:
            await asyncio.sleep(60)
        raise StoreUnavailableError


async def test_ten_mebibytes_of_media_leave_a_hash(
    server: WebhookClient, database_url: str
) -> None:
    media = base64.b64encode(b"x" * (10 * MIB)).decode()
    body = {"event": "messages.upsert", "data": {"message": {"base64": media}}}
    status, _, _ = await server.post("", body)
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
    async with webhook_server(database, Config(), max_body_bytes=MIB) as server:
        status, answer, headers = await server.post("/call", data=data)
        assert (status, answer) == (
            200,
            {"status": "received", "processed": False, "ignored": "too large"},
        )
        assert "Connection" not in headers, "it serves on"
        # The bytes are given back and the connection still serves.
        assert (await server.post("", {"event": "call"}))[0] == 200
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
    async with webhook_server(database, Config(), **settings) as server:
        first = asyncio.create_task(server.post("", data=slow()))
        await until(lambda: server.bytes_in_flight >= 700 * 1024)
        second = await server.post("", {"event": "call", "a": "y" * (700 * 1024)})
        assert (second[0], second[2]["Retry-After"]) == (503, "5")
        release.set()
        assert (await first)[0] == 200
        third = await server.post("", {"event": "call", "a": "y" * (700 * 1024)})
        assert third[0] == 200
        assert server.bytes_in_flight == 0


async def post_at_once(server: WebhookClient, body: bytes) -> bytes:
    """Send head and body in one piece, and return the first line of the answer."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


async def test_a_body_that_comes_with_its_head_counts_like_any_other(
    database: Database,
) -> None:
    settings = {"max_bytes_in_flight": 200}
    async with webhook_server(database, Config(), **settings) as server:
        body = b'{"event":"call","data":"%s"}'
        assert b" 503 " in await post_at_once(server, body % (b"x" * 300))
        assert b" 200 " in await post_at_once(server, body % (b"x" * 100))
        assert b" 200 " in await post_at_once(server, body % (b"y" * 100))
        assert server.bytes_in_flight == 0


async def test_a_body_that_costs_too_much_memory_is_ignored_like_one_too_large(
    server: WebhookClient, database_url: str
) -> None:
    """Evolution would send it ten times again, at the same cost."""
    status, answer, _ = await server.post("", data=wide(14 * MIB))
    assert (status, answer["processed"], answer["ignored"]) == (200, False, "too large")
    assert rows(database_url) == []
    assert server.bytes_in_flight == 0


async def test_a_heavy_body_that_finds_no_turn_is_503(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    heavy_bodies = HeavyBodies()
    await heavy_bodies.close()
    async with webhook_server(database, Config(), heavy_bodies=heavy_bodies) as server:
        status, _, headers = await server.post("", data=history(1_500))
        assert (status, headers["Retry-After"]) == (503, "5")
        assert server.bytes_in_flight == 0
    assert "cannot be read" not in caplog.text, "nothing is wrong"


async def test_who_does_not_send_the_rest_of_a_body_too_large_is_left(
    database: Database,
) -> None:
    async with webhook_server(database, Config(), body_seconds=0.1) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n"
        writer.write(head.encode() + b"{")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer
        assert b"Connection: close" in answer
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_comes_too_slowly_is_503(database: Database) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with webhook_server(database, Config(), body_seconds=0.1) as server:
        status, _, headers = await server.post("", data=never())
        assert (status, "Retry-After" in headers) == (503, True)
        assert server.bytes_in_flight == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_without_the_database_the_answer_is_503_in_time(hangs: bool) -> None:
    settings = {"answer_seconds": 0.1, "awaited_seconds": 0.1}
    async with webhook_server(Down(hangs=hangs), Config(), **settings) as server:
        status, answer, headers = await server.post("", {"event": "call"})
        assert (status, answer["code"]) == (503, "unavailable")
        assert headers["Retry-After"] == "5"
        for event in ("messages.edited", "remove.instance", "logout.instance"):
            status, answer, _ = await server.post("", {"event": event})
            assert (status, answer) == (200, received(event))
        assert server.waiting >= 3


async def test_a_client_that_leaves_after_its_body_leaves_a_row(
    server: WebhookClient, database_url: str
) -> None:
    """Many at once, each cut off as soon as its request is sent."""
    reader_writers = []
    for number in range(20):
        body = json.dumps({"event": "call", "data": {"id": number}}).encode()
        head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(head.encode() + body)
        await writer.drain()
        reader_writers.append(writer)
    for writer in reader_writers:
        writer.close()
    await until(lambda: len(rows(database_url)) == 20)


async def test_a_body_that_breaks_off_leaves_nothing(
    server: WebhookClient, database_url: str
) -> None:
    _, writer = await asyncio.open_connection(server.host, server.port)
    head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
    writer.write(head.encode() + b'{"event":"call"}')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await server.post("", {"event": "labels.edit"}))[0] == 200
    await until(lambda: server.bytes_in_flight == 0)
    assert rows(database_url) == [("labels.edit",)]


def history(count: int) -> bytes:
    row = {"key": {"id": "x"}, "message": {"conversation": "x" * 200}}
    return json.dumps({"event": "messages.set", "data": [row] * count}).encode()


async def test_a_large_body_does_not_hold_up_the_others(
    server: WebhookClient, database_url: str
) -> None:
    first = asyncio.create_task(server.post("", data=history(1_500)))
    others = 0
    while not first.done():
        assert (await server.post("", {"event": "call"}))[0] == 200
        others += 1
    assert (await first)[:2] == (200, received("messages.set"))
    assert others > 3
    columns = "form->>'count', jsonb_array_length(body->'data')"
    condition = "WHERE event = 'messages.set'"
    stored = run_sql(database_url, f"SELECT {columns} FROM viva.inbox {condition}")
    assert stored == [("1500", 1_500)]


async def test_a_very_large_body_leaves_its_normal_form_and_a_hash(
    server: WebhookClient, database_url: str
) -> None:
    status, _, _ = await server.post("", data=history(40_000))
    assert status == 200
    columns = "form->>'count', body->>'removed', length(body->>'sha256')"
    assert rows(database_url, columns) == [("40000", "body", 64)]
