"""Many readers of streams in one cheap process.

Run as ``python -m benchmarks.load`` with a ``Plan`` as JSON on standard input. It
prints ``open`` a second after nearly all streams have text, ``closing`` when the first
of them have ended, ``held`` or ``late`` where that happens, and at last its findings
as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

import jwt

from benchmarks.clock import monotonic
from benchmarks.findings import Window, judge
from benchmarks.model import wish
from benchmarks.replies import Reads

# All of them are never live at once on a server that does not keep pace.
NEARLY_ALL = 0.9
# They begin together: what that heaps up is no steady load, nor are their ends.
SETTLE_SECONDS = 1.0
FIRST_OF_ALL = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """What to load, and how; ``hold_seconds`` ends the streams early, unjudged."""

    port: int
    secret: str
    tag: str
    streams: int
    tokens: int
    every_ms: int
    opens_per_second: int
    deadline_seconds: float
    together: int = 1
    hold_seconds: float | None = None


class Run:
    """All streams of one plan and the moments that they have in common."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.streams: list[Stream] = []
        self.texts = 0
        self.ends = 0
        self.opened_at: float | None = None
        self.closing_at: float | None = None
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def window(self) -> Window | None:
        """The time of steady load, with nearly all streams live, if there was one."""
        if self.opened_at is None or self.closing_at is None:
            return None
        return (self.opened_at, self.closing_at)

    def on_text(self) -> None:
        """A stream has its first text."""
        self.texts += 1
        if self.texts == math.ceil(self.plan.streams * NEARLY_ALL):
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle)
        if self.texts == self.plan.streams:
            self.opened.set()

    def _settle(self) -> None:
        self.opened_at = monotonic()
        print("open", flush=True)

    def on_end(self) -> None:
        """A stream has ended, well or not."""
        self.ends += 1
        if self.ends == math.ceil(self.plan.streams * FIRST_OF_ALL):
            self.closing_at = monotonic()
            print("closing", flush=True)
        if self.ends == self.plan.streams:
            self.ended.set()


class Stream(asyncio.Protocol):
    """One reader: it keeps what it reads, with the time, and nothing else."""

    __slots__ = ("has_text", "reads", "request", "run", "transport")

    def __init__(self, run: Run, request: bytes) -> None:
        self.run = run
        self.request = request
        self.reads: Reads = []
        self.has_text = False
        self.transport: asyncio.Transport | None = None

    def same(self) -> Stream:
        """Itself, as the protocol factory that a connection asks for."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.reads.append((monotonic(), data))
        if not self.has_text and b'"content"' in data:
            self.has_text = True
            self.run.on_text()

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.on_end()


def request_bytes(plan: Plan, number: int) -> bytes:
    """The POST of one stream; each is its own person."""
    now = int(time.time())
    claims = {"sub": f"{plan.tag}-{number}", "iat": now, "exp": now + 3600}
    token = jwt.encode(claims, plan.secret, "HS256")
    message = wish(plan.tokens, plan.every_ms, plan.together)
    body = json.dumps({"mensagem": message, "contexto": []}).encode()
    head = (
        "POST /api/v1/viva/chat/stream HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{plan.port}\r\nAuthorization: Bearer {token}\r\n"
        "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _open_all(run: Run, requests: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    started = monotonic()
    for number, request in enumerate(requests):
        wait = started + number / run.plan.opens_per_second - monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        stream = Stream(run, request)
        run.streams.append(stream)
        try:
            await loop.create_connection(stream.same, "127.0.0.1", run.plan.port)
        except OSError:
            run.on_end()


async def _hold(seconds: float) -> None:
    await asyncio.sleep(seconds)
    print("held", flush=True)
    # The runner looks at the subject's memory now; what follows would disturb it.
    await asyncio.sleep(0.5)


def _silent(run: Run) -> list[str]:
    """What some of the streams without text got instead."""
    silent = [stream.reads for stream in run.streams if not stream.has_text]
    return [repr([data[:200] for _, data in reads[:1]]) for reads in silent[:3]]


async def run_plan(plan: Plan) -> dict[str, Any]:
    """Open the streams, wait for their end or the deadline, and judge them.

    Connections that are still open at the deadline are aborted and count as errors.
    """
    run = Run(plan)
    requests = [request_bytes(plan, number) for number in range(plan.streams)]
    try:
        async with asyncio.timeout(plan.deadline_seconds):
            await _open_all(run, requests)
            if plan.hold_seconds is None:
                await run.ended.wait()
            else:
                await run.opened.wait()
                await _hold(plan.hold_seconds)
    except TimeoutError:
        print("late", flush=True)
    cpu_seconds = time.process_time()
    for stream in run.streams:
        if stream.transport is not None:
            stream.transport.abort()
    if plan.hold_seconds is not None:
        return {"opened": run.texts, "problems": _silent(run)}
    reads = [stream.reads for stream in run.streams]
    found = judge(reads, plan.tokens, run.window)
    return {"load_cpu_seconds": cpu_seconds, **found}


def main() -> None:
    """Run the plan that stands on standard input."""
    import uvloop

    plan = Plan(**json.loads(sys.stdin.readline()))
    print(json.dumps(uvloop.run(run_plan(plan))), flush=True)


def plan_line(plan: Plan) -> str:
    """The plan as the line that ``main`` reads."""
    return json.dumps(asdict(plan)) + "\n"


if __name__ == "__main__":
    main()
