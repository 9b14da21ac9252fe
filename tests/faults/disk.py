"""Scenarios: the database's disk is slow, or fails once. Each gives figures."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.crowd import Crowd, judge
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.talk import dump
from tests.postgres import PostgresServer, run_sql

Figures = dict[str, Any]

# PostgreSQL's default wal_sync_method on Linux.
SYNC = "fdatasync"


@contextlib.asynccontextmanager
async def injected(postgres: PostgresServer, fault: str) -> AsyncIterator[Injection]:
    """Have the kernel answer the server's disk flushes with a fault of strace's."""
    options = ["-f", "-e", f"trace={SYNC}", "-e", f"inject={SYNC}:{fault}"]
    for pid in _family(postgres):
        options += ["-p", str(pid)]
    process = await asyncio.create_subprocess_exec(
        "strace", *options, stderr=asyncio.subprocess.PIPE
    )
    injection = Injection(process)
    try:
        await injection.next("attached")
        yield injection
    finally:
        await injection.end()


class Injection:
    """A running strace; it lets its tracees go on unharmed when it ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def next(self, word: str) -> None:
        """Wait for its next line with a word."""
        assert self._process.stderr is not None
        async with asyncio.timeout(20):
            while line := await self._process.stderr.readline():
                if word in line.decode(errors="replace"):
                    return
        raise AssertionError(f"strace has ended without {word!r}")

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            # What it still has to say must not fill the pipe.
            await self._process.communicate()


def _family(postgres: PostgresServer) -> list[int]:
    """The postmaster and its present children; those to come are followed."""
    assert postgres.pid is not None
    children = Path(f"/proc/{postgres.pid}/task/{postgres.pid}/children").read_text()
    return [postgres.pid, *map(int, children.split())]


async def flush_fails_once(
    fleet: Fleet, model: FakeModel, postgres: PostgresServer, *, readers: int
) -> Figures:
    """PostgreSQL panics and recovers; commits of unknown outcome are settled."""

    async def fail() -> None:
        async with injected(postgres, "error=EIO:when=1") as injection:
            await injection.next("INJECTED")

    return await _through(fleet, model, fail, readers)


async def flushes_are_slow(
    fleet: Fleet, model: FakeModel, postgres: PostgresServer, *, readers: int
) -> Figures:
    """Every flush takes 0.3 s longer, for 4 s."""

    async def slow() -> None:
        async with injected(postgres, "delay_enter=300000") as injection:
            await injection.next("DELAYED")
            await asyncio.sleep(4.0)

    return await _through(fleet, model, slow, readers)


async def _through(fleet: Fleet, model: FakeModel, fault: Any, readers: int) -> Figures:
    model.scripts = [Script(tokens=100, interval_ms=50)]
    history = History()
    (server,) = await fleet.start(1)
    async with Crowd(history, lambda: [server], readers, questions=1) as crowd:
        await crowd.all_have_text()
        await fault()
    verdict = await judge(fleet, model, history, least_done=readers)
    dead = run_sql(
        fleet.dsn, "SELECT count(*) FROM viva.processes WHERE dead_at IS NOT NULL"
    )
    assert dead[0][0] == 0, "somebody was declared dead"
    replies = [m for m in dump(fleet.dsn) if m.role == "assistant"]
    assert {m.status for m in replies} == {"complete"}
    return {"streams": readers, "whole": verdict.figures["done"]}
