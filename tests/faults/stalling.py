"""A reply that no socket's buffers hold, and clients that do not read it."""

from __future__ import annotations

import json

from tests.fakes.script import Script
from tests.faults.client import Stream, ask, read_all
from tests.faults.fleet import Server

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
