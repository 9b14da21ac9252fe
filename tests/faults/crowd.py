"""Many persons at once, and what is measured while processes die around them."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Self

from tests.fakes.model import FakeModel
from tests.faults.checker import Verdict, check
from tests.faults.client import Shown, Stream, ask
from tests.faults.fleet import Fleet, Server
from tests.faults.history import History
from tests.faults.talk import Talk, close_history, live_replies, look, quiet
from tests.postgres import run_sql

_numbers = itertools.count(1)


class Crowd:
    """Persons who ask one question after another: so many, or until the block ends.

    `wants` stands in each question, such as `model:tokens=5` for the fake model; each
    is given up after `within_seconds`. The end of the block waits for the questions
    that are under way.
    """

    def __init__(
        self,
        history: History,
        servers: Callable[[], Sequence[Server]],
        persons: int,
        *,
        questions: int | None = None,
        wants: str = "",
        within_seconds: float = 60.0,
    ) -> None:
        self.talks: list[Talk] = []
        self._history = history
        self._servers = servers
        self._persons = persons
        self._questions = questions
        self._wants = wants
        self._within_seconds = within_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    async def __aenter__(self) -> Self:
        for _ in range(self._persons):
            person = f"person {next(_numbers)}"
            self._tasks.append(asyncio.create_task(self._ask_on(person)))
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._is_over = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    async def all_have_text(self) -> None:
        """Wait until everybody's first question is being answered."""
        while len(self.talks) < self._persons:
            await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            for talk in self.talks[: self._persons]:
                await talk.has_text.wait()

    async def _ask_on(self, person: str) -> None:
        for number in itertools.count(1):
            if number > (self._questions or number):
                return
            if self._questions is None and self._is_over and number > 1:
                return
            text = f"{person} asks {number} {self._wants}".rstrip()
            talk = Talk(self._history, self._servers, person=person, text=text)
            self.talks.append(talk)
            await talk.run(self._within_seconds)


async def taken_over(dsn: str, owner: str, within_seconds: float = 60.0) -> float:
    """Give the seconds from now until a dead owner has no live reply any more.

    Raises:
        TimeoutError: nobody takes over.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_seconds):
        while live_replies(dsn, owner):
            await asyncio.sleep(0.02)
    return loop.time() - began


async def declared_dead_at(dsn: str, owner: str, within_seconds: float = 20.0) -> float:
    """Give the wall-clock time of the transaction that closed the replies.

    The database's clock is this machine's; a busy driver does not falsify it. A process
    that was killed without a live reply has nothing to take over, and may be declared
    dead only after this is called.

    Raises:
        TimeoutError: nobody declares it dead.
    """
    sql = "SELECT extract(epoch FROM dead_at)::float8 FROM viva.processes"
    async with asyncio.timeout(within_seconds):
        while (at := run_sql(dsn, f"{sql} WHERE id = '{owner}'")[0][0]) is None:
            await asyncio.sleep(0.02)
    return float(at)


async def judge(
    fleet: Fleet, model: FakeModel, history: History, *, least_done: int
) -> Verdict:
    """Wait for quiescence, look once more everywhere, check; the verdict is valid."""
    await quiet(fleet.dsn)
    persons = sorted({e.facts["person"] for e in history.of("chat")
                      if e.kind == "invoke"})  # fmt: skip
    for person in persons[:20]:
        for server in fleet.running:
            await look(history, server, person)
    verdict = check(close_history(history, fleet.dsn, model), least_done=least_done)
    assert verdict.word == "valid", (verdict.figures, verdict.broken[:10])
    return verdict


async def opened(server: Server, persons: Sequence[str], text: str) -> list[Stream]:
    """Ask for all of these persons and give their streams, each with some text."""
    streams = await asyncio.gather(*(ask(server, p, f"{p}: {text}") for p in persons))

    async def read_some(stream: Stream) -> None:
        async for _ in stream.events():
            if stream.text:
                return

    await asyncio.gather(*(read_some(stream) for stream in streams))
    return list(streams)


def last_of(stream: Stream) -> Shown | None:
    """Give the stream's last event, if it has had one."""
    return next((shown for shown in stream.shown if shown.is_last), None)


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which that share lies, rounded to milliseconds."""
    ordered = sorted(values)
    return round(ordered[math.ceil(share * len(ordered)) - 1], 3)
