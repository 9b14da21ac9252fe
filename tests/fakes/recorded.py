"""A model's server that answers with recorded bytes, framed and paced as they were.

Which case a request gets stands in the user's message; a case is described in
tests/data/models/README.md.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final, Self

from yarl import URL

ABORT: Final = -1
"""In the place of a piece's size: the connection is reset."""

FOLDER: Final = Path(__file__).parents[1] / "data" / "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer of a model's server, and what is right to make of it.

    `pieces` are sizes in bytes with the pause before each, in seconds; `stays_open`
    ends the body with silence instead of its end.
    """

    name: str
    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/event-stream"
    headers: tuple[tuple[str, str], ...] = ()
    framing: str = "chunked"
    pieces: tuple[tuple[float, int], ...] = ()
    refused_times: int = 0
    refusal_body: str = ""
    then: str = "plain"
    stays_open: bool = False
    right: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a case's description and its bytes."""
        told: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return cls(
            name=told["case"],
            body=file.with_suffix(".bytes").read_bytes(),
            status=told["status"],
            content_type=told["content_type"],
            headers=tuple((name, value) for name, value in told["headers"]),
            framing=told["framing"],
            pieces=tuple(
                (each["after_seconds"], ABORT if each.get("abort") else each["bytes"])
                for each in told["pieces"]
            ),
            refused_times=told.get("refused_times", 0),
            refusal_body=told.get("refusal_body", ""),
            then=told.get("then", "plain"),
            right=told["right"],
        )


def recorded_cases() -> list[Case]:
    """Read all cases of tests/data/models."""
    return [Case.read(file) for file in sorted(FOLDER.glob("*.json"))]


class RecordedModel:
    """Serves cases by the name that the newest user's message is; counts requests.

    `pace` multiplies all pauses.
    """

    def __init__(self, cases: Sequence[Case], *, pace: float = 1.0) -> None:
        self.cases = {case.name: case for case in cases}
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._pace = pace
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> URL:
        """The base URL, with /v1."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return URL.build(scheme="http", host=host, port=port, path="/v1")

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # by __aexit__; Python 3.11's streams log a cancelled handler
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip().split("\r\n")
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        self.bodies.append(body)
        case = self.cases[body["messages"][-1]["content"].rpartition("\n")[2]]
        if "/other/" in start:
            case = self.cases["plain"]
        self.asked[case.name] += 1
        if not case.refused_times:
            return await self._play(case, writer)
        if self.asked[case.name] > case.refused_times:
            return await self._play(self.cases[case.then], writer)
        refusal = case.refusal_body.encode()
        headers = [*_head(case), f"Content-Length: {len(refusal)}"]
        writer.write("\r\n".join([*headers, "", ""]).encode("latin-1") + refusal)
        await writer.drain()
        return True

    async def _play(self, case: Case, writer: asyncio.StreamWriter) -> bool:
        """Send a case; give whether the connection can serve another request."""
        if case.framing.startswith("103"):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
        is_chunked = case.framing.endswith("chunked")
        headers = _head(case)
        if is_chunked:
            headers.append("Transfer-Encoding: chunked")
        elif case.framing == "content-length":
            headers.append(f"Content-Length: {len(case.body)}")
        else:
            headers.append("Connection: close")
        writer.write("\r\n".join([*headers, "", ""]).encode("latin-1"))
        place = 0
        for after, size in case.pieces or ((0.0, len(case.body)),):
            if after:
                await writer.drain()
                await asyncio.sleep(after * self._pace)
            if size == ABORT:
                await writer.drain()
                # Linger for no time: close() sends RST instead of FIN.
                linger = struct.pack("ii", 1, 0)
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            piece = case.body[place : place + size]
            place += size
            if piece:
                writer.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
                )
            if len(case.pieces) > 1:
                await writer.drain()
                await asyncio.sleep(0)
        if case.stays_open:
            await asyncio.Event().wait()
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return is_chunked or case.framing == "content-length"


def _head(case: Case) -> list[str]:
    version = "1.0" if case.framing == "http/1.0" else "1.1"
    lines = [f"HTTP/{version} {case.status} X"]
    if case.content_type is not None:
        lines.append(f"Content-Type: {case.content_type}")
    for name, value in case.headers:
        lines.append(f"{name}: {_date(value)}")
    return lines


def _date(value: str) -> str:
    """Give the HTTP date that "DATE+2" is, in two seconds."""
    word, _, seconds = value.partition("+")
    if word != "DATE":
        return value
    moment = datetime.now(UTC) + timedelta(seconds=int(seconds))
    return format_datetime(moment, usegmt=True)
