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
from collections.abc import Sequence
from typing import Any, Self

from yarl import URL

from tests.fakes.model_answer import ModelAnswer, ModelRequest
from tests.fakes.script import Script


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
        return await ModelAnswer(request, writer, left).run()

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
