"""A server as it runs standalone, and requests as bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from viva_server.commands.http_server import LimitedRunner

HOST = "127.0.0.1"
PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def serving(app: web.Application, **limits: float) -> AsyncIterator[int]:
    """Serve `app` behind the standalone server's limits; yield its port."""
    runner = LimitedRunner(app, shutdown_timeout=1.0, **limits)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0, backlog=2048)
        await site.start()
        yield site.port
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Answer:
    """One response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    return await asyncio.open_connection(HOST, port)


async def read_answer(reader: asyncio.StreamReader) -> Answer | None:
    """Read one response with a length; None if the connection ends before one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split(" ")[1]), headers, body)


async def read_answers(reader: asyncio.StreamReader) -> list[Answer]:
    """Read responses until the server closes the connection."""
    answers = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await read_answer(reader)) is not None:
            answers.append(answer)
    return answers


async def exchange(port: int, *parts: bytes) -> list[Answer]:
    """Send `parts`, each in a segment of its own, and read until the server closes."""
    reader, writer = await connect(port)
    # Read from the start: an answer is lost to a client that writes on after it.
    answers = asyncio.create_task(read_answers(reader))
    try:
        for part in parts:
            if not writer.is_closing():
                writer.write(part)
                await asyncio.sleep(0.02)
        return await answers
    finally:
        answers.cancel()
        writer.close()
