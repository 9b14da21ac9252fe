"""A reply that no socket's buffers hold, and clients that do not read it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

from tests.fakes.script import Script
from tests.faults.client import API, Stream, ask, read_all
from tests.faults.fleet import Server, token_for

LONG_CHARS = 1_000_000
_DELTA_CHARS = 50_000
_USER = "long"


def long_reply() -> Script:
    """Make the model say it, for one request; a server needs `max_reply_chars`."""
    delta = {"choices": [{"index": 0, "delta": {"content": "x" * _DELTA_CHARS}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [delta] * (LONG_CHARS // _DELTA_CHARS) + [last]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Script(events="".join([*lines, "data: [DONE]\n\n"]).encode())


async def say_long(server: Server) -> str:
    """Have the long reply stored; give its id."""
    long = await read_all(await ask(server, _USER, "speak"))
    assert len(long.text) == LONG_CHARS
    return long.headers["viva-message-id"]


async def stall(server: Server, message_id: str) -> Stream:
    """Ask for the long reply again, and read nothing of it."""
    path = f"/viva/chat/stream/{message_id}"
    return await Stream.open(server.port, "GET", path, user=_USER, receive_buffer=4096)


async def read_slowly(server: Server, message_id: str, bytes_per_second: int) -> str:
    """Resume the long reply and read it at a pace; give what came of the response."""
    loop = asyncio.get_running_loop()
    request = (
        f"GET {API}/viva/chat/stream/{message_id} HTTP/1.1\r\nHost: test\r\n"
        f"Authorization: Bearer {token_for(_USER)}\r\nConnection: close\r\n\r\n"
    )
    received = []
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, request.encode())
        with contextlib.suppress(ConnectionError):
            while piece := await loop.sock_recv(sock, 8192):
                received.append(piece)
                await asyncio.sleep(len(piece) / bytes_per_second)
    return b"".join(received).decode()
