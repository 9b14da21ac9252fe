"""A client of the stream on a raw socket, that keeps what it was shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tests.faults.fleet import Server, token_for

API = "/api/v1"
_BLOCK = re.compile(r"(?:id: (?P<id>\S+)\n)?(?:retry: \d+\n)?data: (?P<data>.+)\n")


class GrammarError(AssertionError):
    """The server wrote what the contract does not allow."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One event of a stream, as a client saw it."""

    at: float
    id: str | None
    data: dict[str, Any]

    @property
    def offset(self) -> str:
        """The part of the id behind the message's id."""
        return (self.id or ":").partition(":")[2]

    @property
    def is_last(self) -> bool:
        return "done" in self.data or "error" in self.data


@dataclass(slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Stream:
    """One request on one connection, read event by event.

    `ended` says how: "clean" (the response was complete), "broken" (the server or the
    network cut it), "left" (this client did).
    """

    _open: ClassVar[set[asyncio.StreamWriter]] = set()

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open.add(writer)
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.shown: list[Shown] = []
        self.comments = 0
        self.ended: Literal["", "clean", "broken", "left"] = ""
        self.ended_at = 0.0
        self._text = ""

    @classmethod
    def abort_all(cls) -> None:
        """Close what a test has left open."""
        for writer in cls._open:
            writer.transport.abort()
        cls._open.clear()

    @classmethod
    async def open(
        cls,
        port: int,
        method: str,
        path: str,
        *,
        user: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
    ) -> Stream:
        """Connect and send the request; the answer is not waited for."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=2**20)
        except BaseException:
            sock.close()
            raise
        data = b"" if body is None else json.dumps(body).encode()
        lines = {
            "Host": "test",
            "Authorization": f"Bearer {token_for(user)}",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {API}{path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        return cls(reader, writer)

    @property
    def local_port(self) -> int:
        return int(self._writer.get_extra_info("sockname")[1])

    @property
    def text(self) -> str:
        """All text that was shown on this connection."""
        return "".join(s.data.get("content", "") for s in self.shown)

    async def read_head(self) -> None:
        """Read the status line and the headers.

        Raises:
            ConnectionError: the server has cut the connection before.
        """
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._end("broken")
            raise ConnectionResetError from error
        start, *lines = head.rstrip().split("\r\n")
        self.status = int(start.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    async def read_body(self) -> bytes:
        """Read the response to its end."""
        pieces = [piece async for piece in self._pieces()]
        return b"".join(pieces)

    async def events(self) -> AsyncIterator[Shown]:
        """Give events until the response ends; `ended` says how.

        Raises:
            GrammarError: for bytes that the contract does not allow.
        """
        if not self.status:
            with contextlib.suppress(ConnectionError):
                await self.read_head()
        if not self.status:
            return
        async for piece in self._pieces():
            self._text += piece.decode()  # whole events: never a split character
            while self._text.startswith(":") and "\n" in self._text:
                self.comments += 1
                self._text = self._text.partition("\n")[2]
            *blocks, self._text = self._text.split("\n\n")
            for block in blocks:
                yield self._take(block + "\n")

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, with FIN or with RST."""
        if not self.ended:
            self._end("left")
        if reset:
            sock: socket.socket = self._writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort() if reset else self._close()

    def _close(self) -> None:
        self._writer.close()
        self._open.discard(self._writer)

    def _take(self, block: str) -> Shown:
        if (found := _BLOCK.fullmatch(block)) is None:
            raise GrammarError(f"not an event of the contract: {block!r}")
        shown = Shown(time.monotonic(), found["id"], json.loads(found["data"]))
        self.shown.append(shown)
        return shown

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Give the body as it comes, and note how it ends."""
        try:
            if self.headers.get("transfer-encoding") != "chunked":
                length = int(self.headers.get("content-length", 0))
                yield await self._reader.readexactly(length)
                self._end("clean")
                return
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
            self._end("clean")
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            self._end("broken")
        finally:
            if self.ended:
                self._close()

    def _end(self, how: Literal["clean", "broken", "left"]) -> None:
        if not self.ended:
            self.ended = how
            self.ended_at = time.monotonic()


async def call(
    server: Server,
    method: str,
    path: str,
    *,
    user: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    within_seconds: float = 30.0,
) -> Answer:
    """Send a request and read the whole answer.

    Raises:
        ConnectionError: there was none.
    """
    async with asyncio.timeout(within_seconds):
        stream = await Stream.open(
            server.port, method, path, user=user, body=body, headers=headers
        )
        try:
            await stream.read_head()
            data = await stream.read_body()
        finally:
            stream.leave()
    if stream.ended != "clean":
        raise ConnectionResetError(f"{method} {path} was cut")
    return Answer(stream.status, stream.headers, data)


async def ask(server: Server, user: str, text: str, **headers: str) -> Stream:
    """Post a message to the stream; `_` in a header's name stands for `-`."""
    return await Stream.open(
        server.port,
        "POST",
        "/viva/chat/stream",
        user=user,
        body={"mensagem": text},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def resume(server: Server, user: str, message_id: str, cursor: str) -> Stream:
    """Come back to a reply with the last id that was seen."""
    path = f"/viva/chat/stream/{message_id}"
    return await Stream.open(
        server.port, "GET", path, user=user, headers={"Last-Event-ID": cursor}
    )


async def messages_of(server: Server, user: str) -> list[dict[str, Any]]:
    """Read the snapshot of the user's newest session."""
    answer = await call(server, "GET", "/viva/chat/snapshot?limit=250", user=user)
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json["messages"]
    return found


async def first_text(stream: Stream, chars: int = 1) -> Stream:
    """Read until so much text was shown."""
    async for _ in stream.events():
        if len(stream.text) >= chars:
            return stream
    raise AssertionError(f"ended {stream.ended} before: {stream.status} {stream.shown}")


async def read_all(stream: Stream) -> Stream:
    """Read until the response ends."""
    async for _ in stream.events():
        pass
    return stream
