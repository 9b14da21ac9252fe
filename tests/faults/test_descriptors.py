"""Few descriptors: many clients are refused in words, and no reply pays for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.fleet import Fleet, Server, token_for
from tests.postgres import run_sql

CLIENTS = 400
LIMIT = 256


def asked(port: int, number: int) -> socket.socket:
    """Ask on a connection of its own; a head that is a second late would be refused."""
    body = json.dumps({"mensagem": f"oi {number}"}).encode()
    request = (
        b"POST /api/v1/viva/chat/stream HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer " + token_for(f"p{number}").encode() + b"\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(request)
    client.setblocking(False)
    return client


async def read(client: socket.socket) -> tuple[int, bytes]:
    """Give the status and all that came."""
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split()[1])
        if status != 200:
            return status, answer
        while b'"done":true' not in answer and b'"error"' not in answer:
            chunk = await reader.read(65_536)
            assert chunk, answer[-300:]
            answer += chunk
        return status, answer
    finally:
        writer.close()


async def ask_all(port: int, clients: int) -> list[tuple[int, bytes]]:
    asking = await asyncio.to_thread(
        lambda: [asked(port, number) for number in range(clients)]
    )
    return await asyncio.gather(*map(read, asking))


async def look(port: int, path: str = "/health") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    finally:
        writer.close()


async def limited(fleet: Fleet) -> Server:
    server = fleet.add(prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}"))
    await fleet.run(server)
    return server


async def test_more_clients_than_descriptors_are_answered_all(
    fleet: Fleet, model: FakeModel
) -> None:
    model.scripts = [Script(tokens=60, interval_ms=50)]
    server = await limited(fleet)
    async with asyncio.timeout(120):
        asking = asyncio.create_task(ask_all(server.port, CLIENTS))
        looks = [await look(server.port, path) for path in ("/health", "/ready")]
        answers = await asking

    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() == {200, 503}, statuses
    assert statuses[200] >= 20
    assert all(
        b"Connection: close" in each for status, each in answers if status != 200
    )
    assert all(b'"finish_reason":"stop"' in each for s, each in answers if s == 200)
    assert looks == [200, 200], server.log[-3000:]
    ends = "SELECT DISTINCT finish_reason FROM viva.messages WHERE role = 'assistant'"
    assert run_sql(fleet.dsn, ends) == [("stop",)]
    assert "Traceback" not in server.log


async def test_idle_connections_are_closed_before_anybody_is_refused(
    fleet: Fleet, model: FakeModel
) -> None:
    model.scripts = [Script(tokens=3)]
    server = await limited(fleet)
    kept = []
    for _ in range(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        kept.append(writer)
    answers = await ask_all(server.port, 5)
    for writer in kept:
        writer.close()

    assert [status for status, _ in answers] == [200] * 5
