"""A client on a bare socket, which can leave in every way that TCP knows."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from typing import Literal

from tests.chat_host import HOST, PATIENCE_SECONDS, token
from tests.streams import Event, parse_events, text_of

Way = Literal["fin", "rst", "half-close"]
WAYS: tuple[Way, ...] = ("fin", "rst", "half-close")


class BareClient:
    """Asks with a stream and reads its chunks."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.head = ""
        self.events: list[Event] = []

    @classmethod
    async def asking(cls, port: int, path: str, user: str) -> BareClient:
        """Connect, ask, and read the response's head."""
        self = cls(*await asyncio.open_connection(HOST, port))
        body = json.dumps({"mensagem": "conte"})
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}"
            f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            f"\r\n\r\n{body}".encode()
        )
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        assert self.head.startswith("HTTP/1.1 200 "), self.head
        return self

    def header(self, name: str) -> str:
        """Give the one value of a header."""
        [value] = re.findall(
            rf"^{name}: (.*)\r$", self.head, re.MULTILINE | re.IGNORECASE
        )
        return str(value)

    @property
    def text(self) -> str:
        """All text that has arrived."""
        return text_of(self.events)

    async def read_event(self) -> bool:
        """Read the next chunk, which is one event; False at the response's end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            chunk = (await self._reader.readexactly(size + 2))[:-2]
        self.events += parse_events(chunk)
        return bool(chunk)

    async def read_events(self, count: int) -> None:
        """Read until so many events have arrived."""
        while len(self.events) < count:
            assert await self.read_event()

    async def read_to_end(self) -> None:
        """Read to the response's clean end."""
        while await self.read_event():
            pass
        self._writer.close()

    async def leave(self, way: Way) -> None:
        """Leave in mid-stream, without reading what is under way."""
        if way == "half-close":
            self._writer.write_eof()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._reader.read()  # the server closes its side too
            self._writer.close()
            return
        if way == "rst":
            # Linger for no time: close() sends RST instead of FIN.
            sock = self._writer.get_extra_info("socket")
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._writer.transport.abort()
