"""A fake model: OpenAI's streaming API on a raw socket, with faults by script.

In a test: `async with FakeModel(Script(tokens=3)) as model: … model.url …`.
As a process: `python -m tests.fakes.model --script "tokens=200 interval_ms=20"` prints
its URL; GET /requests tells what it saw, POST /scripts (a script per line) changes what
it does. The message itself may hold a word such as `model:cut=rst`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from yarl import URL

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


class _Socket(asyncio.StreamReaderProtocol):
    """Tells when the client has closed, without reading ahead."""

    def __init__(self, model: FakeModel) -> None:
        self.left = asyncio.Event()
        self._model = model
        super().__init__(asyncio.StreamReader(), self._connected)

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._model.serve(reader, writer, self.left)

    def eof_received(self) -> bool:
        self.left.set()
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()
        super().connection_lost(exc)


class FakeModel:
    """Serves scripts in order, the last one for ever; records every request."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts: list[Script] = list(scripts) or [Script()]
        self.requests: list[ModelRequest] = []
        self.connections = 0
        self._asked = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Socket(self), host, port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(2):  # the transports close their sockets
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> URL:
        """The base URL, with /v1."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return URL.build(scheme="http", host=host, port=port, path="/v1")

    async def asked(self, times: int = 1) -> None:
        """Wait until so many requests have come."""
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= times)

    async def serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: asyncio.Event,
    ) -> None:
        """Answer one connection's requests until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while await self._answer(reader, writer, left):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            # By close(). Python 3.11's streams log a handler that ends as cancelled.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: asyncio.Event,
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip().split("\r\n")
        method, path, _ = start.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not path.partition("?")[0].endswith("/chat/completions"):
            writer.write(self._control(method, path, body))
            return True
        request = ModelRequest(path, headers, json.loads(body), self._next_script())
        request.script = request.script.for_message(request.message)
        self.requests.append(request)
        async with self._asked:
            self._asked.notify_all()
        return await _Answer(request, writer, left).run()

    def _next_script(self) -> Script:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    def _control(self, method: str, path: str, body: bytes) -> bytes:
        if (method, path) == ("POST", "/scripts"):
            self.scripts[:] = [
                Script.parse(line) for line in body.decode().splitlines()
            ]
        elif (method, path) != ("GET", "/requests"):
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        answer = json.dumps([request.as_json() for request in self.requests]).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer


class _Answer:
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


async def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", action="append", default=[], help="one per request")
    options = parser.parse_args(arguments)
    model = FakeModel(*(Script.parse(text) for text in options.script))
    await model.start(options.host, options.port)
    print(model.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
