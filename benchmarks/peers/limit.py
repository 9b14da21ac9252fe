"""The limit: a bare protocol that writes the same bytes and stores nothing.

It decodes nothing either: one regular expression finds the text, and the bytes of
the server's own event go around it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import uuid
from functools import partial
from typing import cast

import uvloop
from yarl import URL

from benchmarks.peers.settings import MODEL_URL

_WISH = re.compile(rb"bench [^\"]+")
_TEXT = re.compile(rb'"content":"([^"]+)"')
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-store, no-transform\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


class Client(asyncio.Protocol):
    """The reader's side; it opens the model's side with the first bytes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.id = str(uuid.uuid4()).encode()
        self.tasks: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        if found := _WISH.search(data):
            task = asyncio.create_task(self._start(found[0]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _start(self, body: bytes) -> None:
        url = URL(MODEL_URL)
        request = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (
            url.path.encode(),
            len(body),
            body,
        )
        self.transport.write(_HEAD)
        await asyncio.get_running_loop().create_connection(
            partial(Model, self, request), str(url.host), url.port or 80
        )


class Model(asyncio.Protocol):
    """The model's side."""

    transport: asyncio.Transport

    def __init__(self, client: Client, request: bytes) -> None:
        self.client = client
        self.request = request
        self.chars = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        for text in _TEXT.findall(data):
            self.chars += len(text)
            self._write(
                b'id: %b:%d\ndata: {"content":"%b"}\n\n'
                % (self.client.id, self.chars, text)
            )
        if data.endswith(b"\r\n0\r\n\r\n"):
            self._write(b'id: %b:end\ndata: {"done":true}\n\n' % self.client.id)
            self.client.transport.write(b"0\r\n\r\n")
            self.client.transport.close()
            self.transport.close()

    def _write(self, event: bytes) -> None:
        self.client.transport.write(b"%x\r\n%b\r\n" % (len(event), event))


async def serve(port: int) -> None:
    """Serve until the process is told to end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Client, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
