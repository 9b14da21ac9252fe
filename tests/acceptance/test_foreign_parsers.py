"""The stream, keep-alives included, through parsers that other people wrote.

Some of them make an event of an `id:` line alone, or of a comment with a blank line
behind it; others cut lines at more than LF. The bytes come from a real server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
from openai._streaming import SSEDecoder

from tests.acceptance.leaving import BareClient
from tests.chat_host import Host, chat_host, serving, settings, token
from tests.dictation import Dictation, saying
from tests.programs import ROOT
from tests.streams import Event, parse_events
from viva_server import SERVICES, ResponderError, create_app
from viva_server.chat.presence import KEEP_ALIVE_SECONDS

FOREIGN = ROOT / "tests" / "foreign"
KEEP_ALIVE = b": keep-alive\n"
TEXT = ("Olá 😀", " \u2028 \u2029 \x85 \r\n\n", "data: x\n\n", ": y\n", "fim")
SIZES = (1, 7, 1_000_000)

Parsed = tuple[str, str]
"""An event's id and data."""
Parser = Callable[[bytes, int], list[Parsed]]
"""Reads bytes that come in pieces of a size."""


@pytest.fixture
async def recorded(database_url: str) -> AsyncIterator[dict[str, bytes]]:
    """Record streams with silences: a whole reply, a failed one, a resumed one."""
    dictation = Dictation()
    app = create_app(settings(database_url), respond=dictation)
    app[SERVICES].runtime.presence.keep_alive_seconds = 0.2
    async with serving(app) as host:
        whole = await _record(host, dictation, *TEXT)
        message_id = parse_events(whole)[0].data["message_id"]
        cursor = f"{message_id}:4"
        async with host.ana.resume(message_id, cursor) as stream:
            await stream.rest()
        error = ResponderError("upstream_timeout")
        failed = await _record(host, dictation, error=error)
        yield {"whole": whole, "resumed": stream.raw, "failed": failed}


async def _record(
    host: Host,
    dictation: Dictation,
    *texts: str,
    error: BaseException | None = None,
) -> bytes:
    """Record one stream with keep-alives before each piece and before the end."""
    async with host.ana.stream("oi") as stream:
        await stream.event()
        reply = await dictation.begun()
        for text in (*texts, None):
            silences = stream.raw.count(KEEP_ALIVE)
            while stream.raw.count(KEEP_ALIVE) < silences + 2:
                chunk = await stream.response.content.readany()
                assert chunk, "the stream ended"
                stream.raw += chunk
            if text is None:
                reply.end(error)
            else:
                reply.say(text)
        await stream.rest()
    return stream.raw


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(raw), size):
        yield raw[start : start + size]


def by_openai(raw: bytes, size: int) -> list[Parsed]:
    events = SSEDecoder().iter_bytes(pieces(raw, size))
    return [(event.id or "", event.data) for event in events if _plain(event.event)]


def by_httpx_sse(raw: bytes, size: int) -> list[Parsed]:
    response = httpx.Response(
        200,
        headers={"Content-Type": "text/event-stream; charset=utf-8"},
        content=pieces(raw, size),
    )
    events = httpx_sse.EventSource(response).iter_sse()
    return [(event.id, event.data) for event in events if _plain(event.event)]


def by_node(folder: Path, parser: str) -> Parser:
    def parse(raw: bytes, size: int) -> list[Parsed]:
        seen = node(folder, "decode.mjs", parser, str(size), given=raw)
        assert seen["errors"] == []
        assert set(seen["retries"]) == {1000}
        events = seen["events"]
        return [(e["id"], e["data"]) for e in events if _plain(e.get("event"))]

    return parse


def _plain(event: str | None) -> bool:
    assert event in {None, "", "message"}, event
    return True


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the npm packages of the lock file outside the checkout."""
    folder = tmp_path_factory.mktemp("foreign")
    for path in FOREIGN.iterdir():
        shutil.copy(path, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*command, "--prefer-offline"], cwd=folder, check=True, timeout=110)
    return folder


def node(folder: Path, script: str, *arguments: str, given: bytes = b"") -> Any:
    """Run a script and give the JSON that it prints."""
    done = subprocess.run(
        ["node", script, *arguments],
        cwd=folder,
        input=given,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def as_parsed(events: list[Event]) -> list[tuple[str, Any]]:
    return [(event.id, event.data) for event in events]


async def test_every_parser_reads_the_same_events(
    recorded: dict[str, bytes], node_modules: Path
) -> None:
    parsers: dict[str, Parser] = {"openai": by_openai, "httpx-sse": by_httpx_sse}
    for name in ("eventsource-parser", "fetch-event-source"):
        parsers[name] = by_node(node_modules, name)
    for raw in recorded.values():
        expected = as_parsed(parse_events(raw))
        for name, parse in parsers.items():
            for size in SIZES:
                seen = [(id_, json.loads(data)) for id_, data in parse(raw, size)]
                assert seen == expected, (name, size)


async def test_a_blank_line_behind_a_keep_alive_would_make_empty_events(
    recorded: dict[str, bytes],
) -> None:
    """The reason for the form of the keep-alive: openai's and httpx-sse's parsers."""
    raw = recorded["whole"].replace(KEEP_ALIVE, KEEP_ALIVE + b"\n")
    for parse in (by_openai, by_httpx_sse):
        assert "" in [data for _, data in parse(raw, 1_000_000)]


async def test_a_keep_alive_comes_after_fifteen_seconds(database_url: str) -> None:
    app = create_app(settings(database_url), respond=saying("oi"))
    presence = app[SERVICES].runtime.presence
    assert presence.keep_alive_seconds == KEEP_ALIVE_SECONDS == 15.0


async def test_the_keep_alive_is_one_write_of_its_own(database_url: str) -> None:
    dictation = Dictation()
    app = create_app(settings(database_url), respond=dictation)
    app[SERVICES].runtime.presence.keep_alive_seconds = 0.2
    async with serving(app) as host:
        port = int(host.origin.rpartition(":")[2])
        reading = await BareClient.asking(port, "/api/v1/viva/chat/stream", "ana")
        await reading.read_events(1)
        assert await reading.read_event()  # a chunk without an event
        assert len(reading.events) == 1
        reply = await dictation.begun()
        reply.say("oi")
        reply.end()
        await reading.read_to_end()
    assert reading.text == "oi"


async def test_fetch_event_source_follows_a_running_server(
    database_url: str, node_modules: Path
) -> None:
    async with chat_host(database_url, saying(*TEXT, pause_seconds=0.05)) as host:
        url = f"{host.ana.base}/viva/chat/stream"
        seen = await asyncio.to_thread(
            node, node_modules, "follow.mjs", url, token(), "oi"
        )
        snapshot = await host.ana.snapshot()
    data = [json.loads(event["data"]) for event in seen["events"]]
    assert data[0]["accepted"] is True
    assert data[-1]["done"] is True
    assert "".join(each.get("content", "") for each in data) == "".join(TEXT)
    assert snapshot["messages"][-1]["conteudo"] == "".join(TEXT)
