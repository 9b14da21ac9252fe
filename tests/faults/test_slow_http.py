"""A client that is slow or silent costs a bounded time and nobody else anything."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from tests.raw_http import (
    HOST,
    PATIENCE_SECONDS,
    connect,
    exchange,
    read_answer,
    read_answers,
    serving,
)
from viva_server.api.edge import Edge
from viva_server.api.request import SEND_BUFFER_BYTES, USER_TIMEOUT_MS, read_json
from viva_server.commands.http_server import LimitedRunner

GET = b"GET / HTTP/1.1\r\nHost: viva.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: viva.test\r\nContent-Type: application/json\r\n"
SILENT_SOCKETS = 2000


async def handler(request: web.Request) -> web.Response:
    if request.method == "POST":
        return web.json_response(await read_json(request, 1000, within_seconds=0.5))
    if request.path == "/slow":
        await asyncio.sleep(1.0)
    return web.Response(text="ok")


@asynccontextmanager
async def slow_site(idle_seconds: float) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", Edge().wrap(handler))
    async with serving(
        app, head_seconds=0.5, idle_seconds=idle_seconds, lingering_seconds=0.3
    ) as port:
        yield port


@pytest.fixture
async def port() -> AsyncIterator[int]:
    # Idle connections outlast PATIENCE_SECONDS: only the limit under test closes one.
    async with slow_site(idle_seconds=600) as port:
        yield port


@pytest.fixture
async def short_idle_port() -> AsyncIterator[int]:
    async with slow_site(idle_seconds=1.5) as port:
        yield port


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * SILENT_SOCKETS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a byte every 50 ms until the server closes."""
    with suppress(ConnectionError):
        for place in range(len(data)):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0.05)


async def closed_after(reader: asyncio.StreamReader) -> float:
    started = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    return time.monotonic() - started


async def test_a_silent_connection_is_closed(port: int) -> None:
    reader, writer = await connect(port)

    assert await closed_after(reader) >= 0.4
    writer.close()


@pytest.mark.parametrize("head", [b"G", GET[:-2]])
async def test_a_part_of_a_head_is_closed(port: int, head: bytes) -> None:
    reader, writer = await connect(port)
    writer.write(head)

    await closed_after(reader)
    writer.close()


async def test_a_part_of_a_head_behind_a_request_counts_as_idle(
    short_idle_port: int,
) -> None:
    reader, writer = await connect(short_idle_port)
    writer.write(GET + GET[:-1])
    assert await read_answer(reader) is not None

    await closed_after(reader)
    writer.close()


async def test_a_head_that_drips_is_closed(port: int) -> None:
    reader, writer = await connect(port)
    dripping = asyncio.create_task(drip(writer, GET + b"X" * 1000))

    assert await closed_after(reader) < 10
    await dripping
    writer.close()


async def test_a_second_head_that_drips_is_closed(port: int) -> None:
    reader, writer = await connect(port)
    for _ in range(2):
        writer.write(GET)
        assert await read_answer(reader) is not None
    dripping = asyncio.create_task(drip(writer, b"GET / HTTP/1.1\r\nX: " + b"y" * 1000))

    assert await closed_after(reader) < 10
    await dripping
    writer.close()


async def test_a_kept_connection_may_be_idle_longer_than_a_head_may_take(
    short_idle_port: int,
) -> None:
    reader, writer = await connect(short_idle_port)
    for _ in range(2):
        writer.write(GET)
        answer = await read_answer(reader)
        assert answer is not None
        assert answer.status == 200
        await asyncio.sleep(0.8)

    await closed_after(reader)
    writer.close()


async def test_a_handler_may_take_longer_than_a_head(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(GET.replace(b" / ", b" /slow "))
    answer = await read_answer(reader)
    writer.close()

    assert answer is not None
    assert answer.status == 200


async def test_a_body_that_drips_is_answered_408_and_closed(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(POST + b"Content-Length: 900\r\n\r\n")
    dripping = asyncio.create_task(drip(writer, b'{"a":"' + b"a" * 800))
    answers = await read_answers(reader)
    await dripping
    writer.close()

    assert [answer.status for answer in answers] == [408]
    assert answers[0].json()["retryable"] is True


async def test_a_body_over_the_limit_is_refused_by_its_length(port: int) -> None:
    answers = await exchange(port, POST + b"Content-Length: 1001\r\n\r\n")

    assert [answer.status for answer in answers] == [413]
    assert answers[0].json()["code"] == "too_large"


async def test_chunks_over_the_limit_are_refused(port: int) -> None:
    chunk = b"64\r\n" + b" " * 100 + b"\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    answers = await exchange(port, head + chunk * 11)

    assert [answer.status for answer in answers] == [413]


async def test_chunks_of_a_byte_are_read(port: int) -> None:
    body = b'{"a":"' + b"a" * 900 + b'"}'
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body)))
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    reader, writer = await connect(port)
    writer.write(head + chunks + b"0\r\n\r\n")
    answer = await read_answer(reader)
    writer.close()

    assert answer is not None
    assert answer.body.replace(b" ", b"") == body


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"x", b"gzip, gzip", b""])
async def test_a_compressed_body_is_refused_unread(
    port: int, coding: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = POST + b"Content-Encoding: " + coding + b"\r\nContent-Length: 4\r\n\r\n"
    answers = await exchange(port, head + b"\x1f\x8b\x00\x00")

    assert [answer.status for answer in answers] == [415]
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


async def test_a_client_that_leaves_in_mid_body_is_no_error(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _, writer = await connect(port)
        writer.write(POST + b"Content-Length: 900\r\n\r\n{")
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.2)

    assert [line.levelno for line in caplog.records] == [logging.INFO]
    assert " 499 " in caplog.text


async def test_silent_sockets_are_closed_while_others_are_served(
    many_files: None, port: int
) -> None:
    sockets = await asyncio.gather(*(connect(port) for _ in range(SILENT_SOCKETS)))
    reader, writer = await connect(port)
    writer.write(GET)
    answer = await read_answer(reader)
    closed = await asyncio.gather(*(closed_after(reader) for reader, _ in sockets))
    for _, other in [*sockets, (reader, writer)]:
        other.close()

    assert answer is not None
    assert answer.status == 200
    assert len(closed) == SILENT_SOCKETS


async def test_an_accepted_socket_bounds_what_a_reader_can_hold_back() -> None:
    found: list[int] = []

    async def look(request: web.Request) -> web.Response:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        found.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", look)
    async with serving(app) as port:
        await exchange(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    # Linux doubles the size that it is asked for (socket(7)).
    assert found == [USER_TIMEOUT_MS, 2 * SEND_BUFFER_BYTES]


async def test_a_stop_closes_idle_connections_at_once() -> None:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = LimitedRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    reader, writer = await connect(site.port)
    writer.write(GET)
    assert await read_answer(reader) is not None

    async with asyncio.timeout(PATIENCE_SECONDS):
        await runner.cleanup()
    assert await reader.read() == b""
    writer.close()
