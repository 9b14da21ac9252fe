"""How a webhook's body is read: its limits, to the byte, and each way out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.acceptance.webhook_server import BASE, received, rows, webhook_server
from tests.waiting import until
from viva_server.api import webhook
from viva_server.config import Config
from viva_server.counters import WhatsAppCounters
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress import inbox
from viva_server.whatsapp.ingress.delivery import Delivery, WebhookRequest
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies

KIB = 2**10
SECRET = "a-secret-of-the-hook"
IGNORED = {"status": "received", "processed": False, "ignored": "too large"}


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Give a body whose length nobody tells beforehand."""
    for part in parts:
        yield part
        await asyncio.sleep(0.01)


def call(size: int) -> bytes:
    """Give a body of that many bytes."""
    start, end = b'{"event":"call","data":"', b'"}'
    return start + b"x" * (size - len(start + end)) + end


@web.middleware
async def _reads_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    await request.read()
    return await handler(request)


async def test_a_body_that_a_middleware_of_the_host_has_read_is_stored(
    database: Database, database_url: str
) -> None:
    async with webhook_server(
        database, Config(), middlewares=[_reads_bodies]
    ) as server:
        for data in (call(200), pieces(call(300))):
            assert (await server.post("", data=data))[:2] == (200, received("call"))
    assert rows(database_url) == [("call",)] * 2


async def test_what_a_middleware_has_read_has_the_same_limit(
    database: Database, database_url: str
) -> None:
    async with webhook_server(
        database, Config(), middlewares=[_reads_bodies], max_body_bytes=KIB
    ) as server:
        for size, answer in ((KIB, received("call")), (KIB + 1, IGNORED)):
            assert (await server.post("", data=pieces(call(size))))[:2] == (200, answer)
            assert server.bytes_in_flight == 0
    assert rows(database_url) == [("call",)]


@pytest.mark.parametrize("comes", ["at once", "in pieces"])
async def test_a_body_of_just_the_limit_is_stored_and_one_byte_more_is_not(
    database: Database, database_url: str, comes: str
) -> None:
    limits = {"max_body_bytes": 100 * KIB, "max_bytes_in_flight": 100 * KIB}
    async with webhook_server(database, Config(), **limits) as server:
        for size, is_stored in ((100 * KIB, True), (100 * KIB + 1, False)):
            body = call(size)
            data: Any = pieces(body[:100], body[100:])
            status, answer, headers = await server.post(
                "", data=body if comes == "at once" else data
            )
            assert (status, answer) == (200, received("call") if is_stored else IGNORED)
            assert "Connection" not in headers, "it serves on"
            assert server.bytes_in_flight == 0
    assert rows(database_url) == [("call",)]


async def test_of_a_body_without_end_a_part_is_taken_and_the_connection_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_MAX_DRAINED_BYTES", 256 * KIB)
    limits = {"max_body_bytes": 100 * KIB, "body_seconds": 600.0}
    async with webhook_server(database, Config(), **limits) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        head = f"POST {BASE} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n"

        async def write() -> None:
            writer.write(head.encode())
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b" " * (16 * KIB))
                    await writer.drain()

        writing = asyncio.create_task(write())
        async with asyncio.timeout(30):
            answer = await reader.readuntil(b"\r\n\r\n")
        writing.cancel()
        await asyncio.wait([writing])
        writer.close()
        assert b" 200 " in answer
        assert b"Connection: close" in answer


@pytest.mark.parametrize(
    ("data", "status", "outcome", "closes"),
    [
        (b'{"apikey":"%s"}' % SECRET.encode(), 200, "stored", False),
        (b'{"apikey":"another-one"}', 401, "unauthorized", False),
        (b"{", 401, "unauthorized", False),
        (b" " * (200 * KIB), 200, "ignored", False),
        ((b" " * (150 * KIB), b" " * (50 * KIB)), 200, "ignored", False),
        ((b"{", None), 503, "unavailable", True),
    ],
)
async def test_each_way_out_gives_the_bytes_back_and_is_counted(
    database: Database, data: Any, status: int, outcome: Any, closes: bool
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for part in data:
            if part is None:
                await asyncio.sleep(600)
            yield part

    counters = WhatsAppCounters()
    settings = {
        "counters": counters,
        "max_body_bytes": 180 * KIB,
        "body_seconds": 0.5 if closes else 30.0,
    }
    config = Config(webhook_secret=(SECRET,), evolution_api_key="an-api-key")
    async with webhook_server(database, config, **settings) as server:
        body = data if isinstance(data, bytes) else slow()
        answered, _, headers = await server.post("", data=body)
        assert answered == status
        assert headers.get("Connection") == ("close" if closes else None)
        await until(lambda: server.bytes_in_flight == 0)
    assert list(counters.webhooks.values()) == [1]
    assert [counted for _, counted in counters.webhooks] == [outcome]


async def test_a_body_beside_too_many_others_ends_its_connection(
    database: Database,
) -> None:
    async with webhook_server(database, Config(), max_bytes_in_flight=KIB) as server:
        status, _, headers = await server.post("", data=call(2 * KIB))
        assert (status, headers["Connection"]) == (503, "close")


async def test_a_light_body_needs_no_process(database: Database) -> None:
    heavy_bodies = HeavyBodies()
    await heavy_bodies.close()
    async with webhook_server(database, Config(), heavy_bodies=heavy_bodies) as server:
        assert (await server.post("", data=call(KIB)))[0] == 200


async def test_evolutions_key_is_not_stored_wherever_it_stands(
    database: Database, database_url: str
) -> None:
    key = "evolutions-own-key"
    config = Config(webhook_secret=(SECRET,), evolution_api_key=key)
    async with webhook_server(database, config) as server:
        body = {"event": "call", "data": f"{SECRET} {key}"}
        headers = {"apikey": SECRET, "User-Agent": key}
        assert (await server.post("", body, headers=headers))[0] == 200
    ((stored,),) = rows(database_url, "CAST(inbox AS text)")
    assert "(removed) (removed)" in stored
    assert key not in stored


async def test_a_defect_is_503_and_logged_by_its_place_and_not_by_its_text(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(raw: bytes, post: WebhookRequest) -> Delivery:
        raise KeyError(raw)

    monkeypatch.setattr(inbox, "read_delivery", broken)
    async with webhook_server(database, Config()) as server:
        status, _, headers = await server.post("", {"data": "what a person wrote"})
        assert (status, headers["Retry-After"]) == (503, "5")
    assert "cannot be read: KeyError in broken, line " in caplog.text
    assert "person" not in caplog.text


class Silent:
    """A database that never answers."""

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        await asyncio.sleep(600)
        return []


@pytest.mark.parametrize(
    ("event", "limit", "status"),
    [("call", "answer_seconds", 503), ("messages.edited", "awaited_seconds", 200)],
)
async def test_what_evolutions_queue_waits_for_has_a_time_limit_of_its_own(
    event: str, limit: str, status: int
) -> None:
    settings = {"answer_seconds": 600.0, "awaited_seconds": 600.0, limit: 0.05}
    async with webhook_server(Silent(), Config(), **settings) as server:
        async with asyncio.timeout(30):
            assert (await server.post("", {"event": event}))[0] == status


async def test_a_large_body_has_longer_to_be_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_STORED_BYTES_PER_SECOND", 1)
    async with webhook_server(database, Config(), answer_seconds=0.0) as server:
        assert (await server.post("", data=call(KIB)))[0] == 200
