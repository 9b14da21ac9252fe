"""Carrying out one script of the fake model on one socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.script import ENDLESS, Script, token, token_count


@dataclass(slots=True)
class ModelRequest:
    """One request as the model saw it; times are of `time.monotonic`."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    script: Script
    sent: list[str] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)
    ended: str = ""  # "complete", "cut", "left" (the client closed first)
    closed_at: float | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def message(self) -> str:
        """The user's newest message."""
        return next(
            str(message["content"])
            for message in reversed(self.body["messages"])
            if message["role"] == "user"
        )

    @property
    def text(self) -> str:
        """All text sent until now."""
        return "".join(self.sent)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "body": self.body,
            "text": self.text,
            "tokens": len(self.sent),
            "started_at": self.started_at,
            "ended": self.ended,
            "closed_at": self.closed_at,
        }


class ModelAnswer:
    """Carries out one script on one socket."""

    def __init__(
        self, request: ModelRequest, writer: asyncio.StreamWriter, left: asyncio.Event
    ) -> None:
        self._request = request
        self._script = request.script
        self._writer = writer
        self._left = left

    async def run(self) -> bool:
        """Return whether the connection stays open for another request."""
        watcher = asyncio.create_task(self._watch())
        try:
            stays = await self._play()
        except ConnectionError:
            self._request.ended = "left"
            stays = False
        finally:
            watcher.cancel()
        request = self._request
        if not request.ended:
            request.ended = "complete" if stays else "cut"
        if request.closed_at is None:
            request.closed_at = time.monotonic()
        request.closed.set()
        return stays

    async def _watch(self) -> None:
        await self._left.wait()
        self._request.ended = self._request.ended or "left"
        self._request.closed_at = time.monotonic()
        self._request.closed.set()

    async def _play(self) -> bool:
        script = self._script
        if script.first_ms:
            await self._pause(script.first_ms)
        if script.raw is not None:
            await self._write_in_pieces(script.raw)
            return False
        if script.status != 200:
            self._writer.write(self._head(chunked=False))
            return True
        self._writer.write(self._head(chunked=True))
        if script.events is not None:
            await self._write_in_pieces(script.events, chunked=True)
        else:
            async for text in self._tokens():
                self._request.sent.append(text)
                await self._write_event({"content": text}, None)
        if script.cut:
            return await self._cut()
        if script.events is None:
            await self._finish()
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    async def _finish(self) -> None:
        if self._script.finish:
            await self._write_event({}, self._script.finish)
        if self._script.done:
            self._write_chunk(b"data: [DONE]\n\n")

    async def _tokens(self) -> AsyncIterator[str]:
        script, message = self._script, self._request.message
        count = script.cut_after if script.cut else token_count(script, message)
        index = 0
        while count == ENDLESS or index < count:
            if self._left.is_set():
                raise ConnectionResetError
            if index and script.interval_ms:
                await self._pause(script.interval_ms)
            yield token(script, message, index)
            index += 1

    async def _cut(self) -> bool:
        match self._script.cut:
            case "eof":
                self._writer.write(b"0\r\n\r\n")
                return True
            case "stall":
                await self._left.wait()
            case "error":
                self._write_chunk(b'data: {"error":{"message":"upstream words"}}\n\n')
                await self._left.wait()
            case "garbage":
                self._write_chunk(b'data: {"choices":[{"delta":\n\n')
                await self._left.wait()
            case "rst":
                await self._writer.drain()
                # Linger for no time: close() sends RST instead of FIN.
                linger = struct.pack("ii", 1, 0)
                raw: socket.socket = self._writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return False

    def _head(self, *, chunked: bool) -> bytes:
        script = self._script
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        if chunked:
            headers |= {"Transfer-Encoding": "chunked"}
        else:
            headers |= {"Content-Length": "0"}
        headers |= script.headers
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([f"HTTP/1.1 {script.status} X", *lines, "", ""]).encode()

    async def _write_event(self, delta: dict[str, str], finish: str | None) -> None:
        event = {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self._request.body.get("model", "fake"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        self._write_chunk(b"data: %b\n\n" % json.dumps(event).encode())
        await self._writer.drain()
        if not self._script.interval_ms:
            await asyncio.sleep(0)

    def _write_chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def _write_in_pieces(self, data: bytes, *, chunked: bool = False) -> None:
        size = self._script.piece or len(data) or 1
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if chunked:
                self._write_chunk(piece)
            else:
                self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(self._script.interval_ms / 1000)

    async def _pause(self, milliseconds: float) -> None:
        """Sleep, but no longer than the client stays."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await self._left.wait()
                raise ConnectionResetError
