"""A proxy before PostgreSQL that cuts the way to it on demand, as networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable
from typing import Literal, Self

from psycopg2.extensions import make_dsn, parse_dsn

Mode = Literal["pass", "drop", "up", "down", "refuse"]

_HIGHEST_WAIT_SECONDS = 10.0
_FIRST_SYN_SECONDS = 1.0
_FIRST_DATA_SECONDS = 0.2


class Proxy:
    """A port that leads to a server and fails as `set` says.

    `pass`: both ways are open. `drop`: nothing goes either way and connections stay
    open, as behind a switch that drops; a FIN or RST is held back as well. `up`: only
    requests go, their answers are lost. `down`: only answers go. `refuse`: open
    connections are reset and new ones refused, as when the server's program is gone.

    What was held back is delivered when the mode lets it. With `retransmits` it comes
    when a TCP would repeat it (a connection 1, 3, 7 … s after its begin, data 0.2, 0.6,
    1.4 … s after it was held back), and a connection whose data waited for 10 s is
    lost, so that each connection comes back at another moment.
    """

    def __init__(
        self,
        dsn: str,
        *,
        retransmits: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.mode: Mode = "pass"
        self.delay_seconds = 0.0
        """How much later each piece arrives, in order."""
        self.host = host
        self.port = port
        self._address = parse_dsn(dsn)
        self._retransmits = retransmits
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        """Those of `_writers` that lead to the server."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_port()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def dsn(self) -> str:
        """The way through here to the database."""
        way = {**self._address, "host": self.host, "port": str(self.port)}
        return str(make_dsn(**way))

    async def set(self, mode: Mode) -> None:
        """Change what goes through, of open and new connections alike."""
        was, self.mode = self.mode, mode
        if mode == "refuse":
            self._close_port()
            self.reset()
        elif was == "refuse":
            await self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """Reset all open connections; new ones are taken as the mode says."""
        for writer in self._writers:
            _reset(writer)

    def forget(self) -> None:
        """Reset the server's side of all open connections, as if its machine were gone.

        The clients hear of it when the mode lets answers through.
        """
        for writer in self._servers:
            _reset(writer)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, self.host, self.port, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _close_port(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls it as a task"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            now = asyncio.get_running_loop().time()
            await self._until_open("up", now, _FIRST_SYN_SECONDS)
            if not reader.at_eof():  # else the client has given up meanwhile
                await self._join(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what both sides say until both have ended, or one is reset."""
        try:
            back, forth = await self._connect()
        except OSError:
            _reset(writer)
            return
        self._writers.add(forth)
        self._servers.add(forth)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump("up", reader, forth))
                group.create_task(self._pump("down", back, writer))
        except* OSError:
            _reset(writer)
            _reset(forth)
        finally:
            self._writers.discard(forth)
            self._servers.discard(forth)
            forth.close()

    def _connect(
        self,
    ) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        host, port = self._address["host"], self._address.get("port", "5432")
        if host.startswith("/"):
            return asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return asyncio.open_connection(host, int(port))

    async def _pump(
        self,
        way: Literal["up", "down"],
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(64)
        reading = asyncio.create_task(_read(source, pieces))
        try:
            while True:
                at, piece = await pieces.get()
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(at + self.delay_seconds - now)
                held = await self._until_open(way, at, _FIRST_DATA_SECONDS)
                if isinstance(piece, OSError):
                    raise piece
                if self._retransmits and held > _HIGHEST_WAIT_SECONDS:
                    raise TimeoutError("no TCP would repeat it any more")
                if not piece:
                    sink.write_eof()
                    return
                sink.write(piece)
                await sink.drain()
        finally:
            reading.cancel()

    async def _until_open(
        self, way: Literal["up", "down"], since: float, first_seconds: float
    ) -> float:
        """Wait until the mode lets this way; give how long it was held back."""
        loop = asyncio.get_running_loop()
        while self.mode not in {"pass", way}:
            await self._changed.wait()
            pause, at = first_seconds, since + first_seconds
            while self._retransmits and at < loop.time():
                pause *= 2
                at += pause
            if self._retransmits:
                await asyncio.sleep(at - loop.time())
        return loop.time() - since


async def _read(
    source: asyncio.StreamReader,
    pieces: asyncio.Queue[tuple[float, bytes | OSError]],
) -> None:
    """Take what comes, the end and a reset among it, with the time when it came."""
    piece: bytes | OSError = b"begin"
    while piece and not isinstance(piece, OSError):
        try:
            piece = await source.read(65536)
        except OSError as error:
            piece = error
        await pieces.put((asyncio.get_running_loop().time(), piece))


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
