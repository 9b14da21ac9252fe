"""A model that costs little: OpenAI's stream from one timer for all requests.

A request says in its last message what it wants: "bench 150 tokens every 40 ms, 200
together": these 200 begin when the last of them has come, so that the opening of
streams and their steady flow can be told apart. Run as ``python -m benchmarks.model
PORT``; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from functools import partial
from typing import Any, cast

from benchmarks.clock import monotonic, stamp

TICK_SECONDS = 0.002
SLOTS = 1024  # the wheel holds delays of up to two seconds
TOGETHER_SECONDS = 30.0  # then those that are there begin without the rest
_WISH = re.compile(rb"bench (\d+) tokens every (\d+) ms, (\d+) together")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def wish(tokens: int, every_ms: int, together: int = 1) -> str:
    """The user's message that asks for so many tokens."""
    return f"bench {tokens} tokens every {every_ms} ms, {together} together"


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    body: dict[str, Any] = {
        "id": "chatcmpl-CzQ4vLw8sV0mYt2RkUe6JpXn3aBcd",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return b"data: %b\n\n" % json.dumps(body, separators=(",", ":")).encode()


_MARK = stamp(0)
_FIRST = _HEAD + _chunk(_event({"role": "assistant", "content": ""}))
_BEFORE, _AFTER = _chunk(_event({"content": _MARK})).split(_MARK.encode())
_LAST = _chunk(_event({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Wheel:
    """Sends one token to each stream that is due, all from one timer."""

    def __init__(self) -> None:
        self.slots: list[list[Upstream]] = [[] for _ in range(SLOTS)]
        self.random = random.Random(1)
        self.waiting: list[Upstream] = []
        self.latest: asyncio.TimerHandle | None = None
        self.now = 0
        self.started_at = monotonic()

    def add(self, stream: Upstream, together: int) -> None:
        """Let the stream begin, or wait for as many as it wants beside it."""
        if not self.waiting:
            loop = asyncio.get_running_loop()
            self.latest = loop.call_later(TOGETHER_SECONDS, self._begin)
        self.waiting.append(stream)
        if len(self.waiting) >= together:
            self._begin()

    def _begin(self) -> None:
        if self.latest is not None:  # it would begin the next load too early
            self.latest.cancel()
        for stream in self.waiting:
            phase = self.random.randint(1, stream.every_ticks)
            self.slots[(self.now + phase) % SLOTS].append(stream)
        self.waiting = []

    def turn(self) -> None:
        """Send what is due, and come back at the next tick."""
        elapsed = monotonic() - self.started_at
        while self.now * TICK_SECONDS < elapsed:
            self.now += 1
            self._send_slot(self.now % SLOTS)
        next_at = self.started_at + (self.now + 1) * TICK_SECONDS
        asyncio.get_running_loop().call_later(
            max(0.0, next_at - monotonic()), self.turn
        )

    def _send_slot(self, index: int) -> None:
        due = self.slots[index]
        if not due:
            return
        self.slots[index] = []
        token = b"%b%b%b" % (_BEFORE, stamp(monotonic()).encode(), _AFTER)
        for stream in due:
            if stream.send(token):
                self.slots[(self.now + stream.every_ticks) % SLOTS].append(stream)


class Upstream(asyncio.Protocol):
    """One connection, one request at a time, kept alive between them."""

    __slots__ = ("buffer", "every_ticks", "left", "transport", "wheel")
    transport: asyncio.Transport

    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel
        self.buffer = b""
        self.left = 0
        self.every_ticks = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]):
            self.buffer = b""
            self._start(_WISH.findall(body))

    def _start(self, wishes: list[tuple[bytes, bytes, bytes]]) -> None:
        tokens, every_ms, together = wishes[-1] if wishes else (b"1", b"20", b"1")
        self.left = int(tokens)
        self.every_ticks = max(1, round(int(every_ms) / 1000 / TICK_SECONDS))
        self.transport.write(_FIRST)
        self.wheel.add(self, int(together))

    def send(self, token: bytes) -> bool:
        """Write one token; False after the last one, or when nobody is there."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.transport.write(token if self.left else token + _LAST)
        return self.left > 0


async def serve(port: int) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    wheel = Wheel()
    server = await loop.create_server(
        partial(Upstream, wheel), "127.0.0.1", port, backlog=4096
    )
    wheel.turn()
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
