"""Scenario: webhooks of 64 MiB come while others want their answers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.fakes.model import FakeModel
from tests.fakes.script import ENDLESS, Script
from tests.faults.client import Stream, ask, first_text
from tests.faults.fleet import Fleet, Server
from tests.faults.heavy import KINDS, media
from tests.postgres import run_sql

Figures = dict[str, Any]

MIB = 2**20
_WEBHOOK = "/api/v1/webhook/evolution"
_JSON = {"Content-Type": "application/json"}
_BEAT_SECONDS = 0.005
_ANSWER_SECONDS = 120.0


class Probe:
    """Asks again and again on one kept connection, in a thread; keeps the times.

    The longest answer of a route that does no work is the longest time for which the
    server's event loop did something else.
    """

    def __init__(self, ask_once: Callable[[http.client.HTTPConnection], None]) -> None:
        self._ask_once = ask_once
        self._ends = threading.Event()
        self.seconds: list[float] = []
        self.errors: list[Exception] = []

    def run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            while not self._ends.wait(_BEAT_SECONDS):
                began = time.perf_counter()
                try:
                    self._ask_once(connection)
                except (AssertionError, OSError, http.client.HTTPException) as error:
                    self.errors.append(error)
                    connection.close()
                self.seconds.append(time.perf_counter() - began)

    def stop(self) -> None:
        self._ends.set()

    def longest_since(self, mark: int) -> float:
        return max(self.seconds[mark:], default=0.0)


def _health(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status


def _light(connection: http.client.HTTPConnection) -> None:
    body = json.dumps({"event": "call", "data": {"id": os.urandom(8).hex()}})
    connection.request("POST", _WEBHOOK, body, _JSON)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status


def post(port: int, body: bytes) -> tuple[int, dict[str, Any], float]:
    """Post a body and give status, answer and seconds; blocks."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", _WEBHOOK, body, _JSON)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    return answer.status, said, time.perf_counter() - began


class Memory:
    """Resident bytes of a server and of the processes that it has begun."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.peak = 0
        self.children_peak = 0

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._server.resident_bytes)
            children = sum(map(_resident, children_of(self._server.pid)))
            self.children_peak = max(self.children_peak, children)
            await asyncio.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Give the processes that a process has begun and that have not ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def heavy_processes_of(pid: int) -> list[int]:
    """Give the running processes of a server that read heavy bodies for it."""
    running = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            if b"ingress.heavy_bodies" in Path(f"/proc/{child}/cmdline").read_bytes():
                running.append(child)
    return running


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")
    return 0


@contextlib.asynccontextmanager
async def _watched(
    server: Server, *probes: Probe
) -> AsyncIterator[tuple[Memory, Stream]]:
    """Let probes and a chat stream run beside."""
    memory = Memory(server)
    watching = asyncio.create_task(memory.watch())
    asking = [
        asyncio.create_task(asyncio.to_thread(p.run, server.port)) for p in probes
    ]
    stream = await first_text(await ask(server, "ana", "conte"))
    reading = asyncio.create_task(_read(stream))
    try:
        yield memory, stream
    finally:
        for probe in probes:
            probe.stop()
        stream.leave()
        watching.cancel()
        reading.cancel()
        await asyncio.wait([watching, reading, *asking])


async def _read(stream: Stream) -> None:
    async for _ in stream.events():
        pass


async def others_go_on(
    fleet: Fleet,
    model: FakeModel,
    *,
    mebibytes: float,
    media_mebibytes: float,
    at_once: int = 4,
    kinds: Sequence[str] = tuple(KINDS),
    returns_to: float = 32,
    block_seconds: float = 0.2,
) -> Figures:
    """Bodies of each kind, then several at once; nobody else notices, nothing stays."""
    model.scripts = [Script(tokens=ENDLESS, interval_ms=20)]
    (server,) = await fleet.start(
        1, webhook_open="1", reply_seconds="3600", max_reply_chars="10000000"
    )
    health, light = Probe(_health), Probe(_light)
    figures: Figures = {}
    bodies = {kind: KINDS[kind](int(mebibytes * MIB) - 1000) for kind in kinds}
    bodies["media_20"] = media(int(media_mebibytes * MIB))
    async with _watched(server, health, light) as (memory, stream):
        await asyncio.sleep(1)
        before = server.resident_bytes
        for kind, body in bodies.items():
            figures[kind] = await _posted([body], server, health, light, stream)
        mixed = [bodies[kind] for kind in ("media", "history", "index_map", "media_20")]
        many = (mixed * at_once)[:at_once]
        figures["at_once"] = await _posted(many, server, health, light, stream)
        bodies.clear()
        after = await _settled(server, before + returns_to * MIB)
    assert not health.errors, health.errors[:3]
    assert not light.errors, light.errors[:3]
    longest = max(health.seconds)
    assert longest < block_seconds, f"the event loop was held for {longest:.3f} s"
    assert after < before + returns_to * MIB, f"{after // MIB} MiB stay"
    largest = run_sql(fleet.dsn, "SELECT max(length(body::text)) FROM viva.inbox")
    return {
        **figures,
        "longest_block_ms": _ms(longest),
        "own_metric_ms": await _own_metric(server),
        "mib_before": before // MIB,
        "mib_peak": memory.peak // MIB,
        "mib_children_peak": memory.children_peak // MIB,
        "mib_after": after // MIB,
        "largest_stored_kib": largest[0][0] // 1024,
        "beats": len(health.seconds),
    }


async def _posted(
    bodies: Sequence[bytes], server: Server, health: Probe, light: Probe, stream: Stream
) -> Figures:
    """Post bodies at once, and give what that did to the others meanwhile."""
    marks = len(health.seconds), len(light.seconds), len(stream.shown)
    refused = len(light.errors)
    answers = await asyncio.gather(
        *(asyncio.to_thread(post, server.port, body) for body in bodies)
    )
    await asyncio.sleep(0.2)
    shown = [event.at for event in stream.shown[marks[2] :]]
    said = [
        answer.get("ignored", answer.get("event", answer.get("code")))
        for _, answer, _ in answers
    ]
    return {
        "statuses": [status for status, _, _ in answers],
        "said": said,
        "seconds": [round(seconds, 1) for _, _, seconds in answers],
        "block_ms": _ms(health.longest_since(marks[0])),
        "light_webhook_ms": _ms(light.longest_since(marks[1])),
        "light_refused": len(light.errors) - refused,
        "stream_gap_ms": _ms(max((b - a for a, b in pairwise(shown)), default=0.0)),
    }


async def _settled(server: Server, bound: float) -> int:
    """Give the memory when it is back, or after some seconds."""
    until = time.monotonic() + 5
    while server.resident_bytes > bound and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return server.resident_bytes


async def _own_metric(server: Server) -> float:
    """Give the highest bucket of the server's own loop lag that is not empty."""
    text = await asyncio.to_thread(_metrics, server.port)
    pattern = r'viva_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)'
    buckets = [(float(le), float(n)) for le, n in re.findall(pattern, text)]
    assert buckets, text[:500]
    return _ms(min(le for le, n in buckets if n == buckets[-1][1]))


def _metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
