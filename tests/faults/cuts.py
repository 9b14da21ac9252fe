"""Scenes: the way between two processes and their database is cut. Each gives figures.

The processes are runtimes in the test's own event loop; their connections, the proxies
and PostgreSQL are real.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.bouncer import PgBouncer
from tests.dictation import Dictated
from tests.faults.proxy import Mode, Proxy
from tests.integration.chat.looks import message
from tests.integration.chat.rooms import ANA, Process, read, read_to_end, running
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat.service import Reading
from viva_server.store.driver.tasks import end_task

Figures = dict[str, Any]

DEAD = (
    "SELECT CAST(id AS text), CAST(dead_by AS text), verdict FROM viva.processes"
    " WHERE dead_at IS NOT NULL"
)


class Pair:
    """Two processes, each with a live reply that has text."""

    def __init__(
        self, dsn: str, processes: Sequence[Process], ways: Sequence[Proxy]
    ) -> None:
        self.dsn = dsn
        self.processes = processes
        self.ways = ways
        self.live: list[tuple[Reading, Dictated]] = []

    async def begin(self) -> None:
        for number, process in enumerate(self.processes):
            person = ANA._replace(id=f"person {number}")
            reading, model = await process.begin(person=person)
            model.say("antes ")
            await read(reading, 6)
            self.live.append((reading, model))

    async def judge_fast(self) -> None:
        """Wait until both may judge fast."""
        await until(
            lambda: all(
                process.runtime.ownership.detector._judges_fast(
                    asyncio.get_running_loop().time()
                )
                for process in self.processes
            ),
            within_seconds=60,
        )

    async def all_go_on(self) -> None:
        """See that nobody was declared dead and both replies end whole."""
        for reading, model in self.live:
            model.say("depois")
            model.end()
            text, ending = await read_to_end(reading)
            assert (text, ending.status) == ("depois", "complete")
        assert run_sql(self.dsn, DEAD) == []

    async def is_back(self, number: int, was: str) -> float:
        """Wait until a declared dead process works under a new id; give the seconds."""
        process, loop = self.processes[number], asyncio.get_running_loop()
        began = loop.time()
        alive = "SELECT 1 FROM viva.processes WHERE dead_at IS NULL AND id = '{}'"
        await until(
            lambda: process.id != was and run_sql(self.dsn, alive.format(process.id)),
            within_seconds=60,
        )
        return loop.time() - began


@contextlib.asynccontextmanager
async def pair_behind(dsn: str, *, retransmits: bool = False) -> AsyncIterator[Pair]:
    """Run two processes, each behind a proxy of its own."""
    async with (
        Proxy(dsn, retransmits=retransmits) as first,
        Proxy(dsn, retransmits=retransmits) as second,
        running(first.dsn) as one,
        running(second.dsn) as other,
    ):
        pair = Pair(dsn, [one, other], [first, second])
        try:
            await pair.begin()
            await pair.judge_fast()
            yield pair
        finally:
            for way in pair.ways:
                await way.set("pass")


async def all_are_cut(
    dsn: str, mode: Mode, seconds: float, *, retransmits: bool = False
) -> Figures:
    """What cuts off all makes nobody dead, not either after its end."""
    async with pair_behind(dsn, retransmits=retransmits) as pair:
        for way in pair.ways:
            await way.set(mode)
        await asyncio.sleep(seconds)
        for way in pair.ways:
            await way.set("pass")
            await asyncio.sleep(2.5)  # whoever is back first must not judge the other
        assert run_sql(dsn, DEAD) == []
        await pair.all_go_on()
    return {"mode": mode, "seconds": seconds, "declared_dead": 0}


async def one_is_cut_for_a_moment(dsn: str, mode: Mode, seconds: float) -> Figures:
    """Alone cut off for a moment costs a pause."""
    async with pair_behind(dsn) as pair:
        await pair.ways[0].set(mode)
        await asyncio.sleep(seconds)
        await pair.ways[0].set("pass")
        await asyncio.sleep(1.0)
        assert run_sql(dsn, DEAD) == []
        await pair.all_go_on()
    return {"mode": mode, "seconds": seconds, "declared_dead": 0}


async def one_dies_in_a_cut(dsn: str) -> Figures:
    """Alone reset and refused: declared dead fast; itself again at once when back."""
    async with pair_behind(dsn) as pair:
        cut, judge = pair.processes
        was = cut.id
        await pair.ways[0].set("refuse")
        await until(lambda: run_sql(dsn, DEAD), within_seconds=60)
        ((dead, by, verdict),) = run_sql(dsn, DEAD)
        assert (dead, by) == (was, judge.id)
        reading, _ = pair.live[0]
        stored = message(dsn, reading.message_id)
        assert stored[2:] == ("antes ", "partial", "crashed")
        await pair.ways[0].set("pass")
        took = await pair.is_back(0, was)
        await cut.complete("E agora?", person=ANA._replace(id="somebody new"))
    return {"back_after_s": round(took, 2), "verdict": verdict}


async def after(
    dsn: str, break_it: Callable[[], Awaitable[None]], processes: Sequence[Process]
) -> None:
    """Break something for all while replies are live; nobody is declared dead."""
    pair = Pair(dsn, processes, [])
    await pair.begin()
    await pair.judge_fast()
    await break_it()
    await asyncio.sleep(3.0)
    await pair.all_go_on()


async def pooler_is_killed(dsn: str, folder: Path, seconds: float) -> Figures:
    """PgBouncer in session mode is killed and comes back: a cut that meets all."""
    bouncer = PgBouncer(dsn, "session", folder)
    bouncer.start()
    try:
        async with running(bouncer.dsn) as one, running(bouncer.dsn) as other:

            async def kill() -> None:
                bouncer.kill()
                await asyncio.sleep(seconds)
                bouncer.start()

            await after(dsn, kill, [one, other])
    finally:
        bouncer.kill()
    return {"seconds": seconds, "declared_dead": 0}


async def killed_behind_a_pooler(dsn: str, folder: Path) -> Figures:
    """In transaction mode the lock outlives the process: it is found slow."""
    bouncer = PgBouncer(dsn, "transaction", folder)
    bouncer.start()
    loop = asyncio.get_running_loop()
    try:
        async with running(bouncer.dsn) as one, running(bouncer.dsn) as judge:
            pair = Pair(dsn, [one, judge], [])
            await pair.begin()
            await asyncio.sleep(2.0)
            assert run_sql(dsn, DEAD) == []
            was = one.id
            await _vanish(one)
            began = loop.time()
            await until(lambda: run_sql(dsn, DEAD), within_seconds=90)
            took = loop.time() - began
            assert run_sql(dsn, DEAD) == [(was, judge.id, "slow")]
            reading, _ = pair.live[0]
            assert message(dsn, reading.message_id).finish_reason == "crashed"
    finally:
        bouncer.kill()
    return {"closed_after_s": round(took, 1)}


async def _vanish(process: Process) -> None:
    """Let a process beat no more, as if it had been killed."""
    ownership = process.runtime.ownership
    assert ownership._task is not None
    assert ownership._connection is not None
    with contextlib.suppress(asyncio.CancelledError):
        await end_task(ownership._task)
    await ownership._connection.close()


async def clock_jumps(dsn: str) -> Figures:
    """PostgreSQL's clock goes a minute ahead: by it every heartbeat is a minute old.

    The rows are put back instead of the clock: libfaketime can change the clock of a
    running PostgreSQL only by a file, which crashes it in signal handlers.
    """
    async with running(dsn) as one, running(dsn) as other:

        async def jump() -> None:
            for _ in range(50):
                run_sql(
                    dsn,
                    "UPDATE viva.processes SET beat_at = beat_at - interval '60 s'"
                    " WHERE beat_at > clock_timestamp() - interval '30 s'",
                )
                await asyncio.sleep(0.05)

        await after(dsn, jump, [one, other])
    return {"declared_dead": 0}
