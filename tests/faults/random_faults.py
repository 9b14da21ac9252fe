"""Scenario: faults at random between servers and their database, and what they cost.

A hundred persons ask, ten webhooks a second come, and every 10 to 40 s another fault of
`injection` meets one process or all of them. What it may cost is judged by `checker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from tests.faults.checker import CLOSED_AFTER_FAULT_SECONDS, CLOSED_SECONDS, check
from tests.faults.client import call
from tests.faults.crowd import Crowd
from tests.faults.fleet import Server
from tests.faults.history import History
from tests.faults.injection import CLOCK_AHEAD_SECONDS, FAULTS, Fault, Part
from tests.faults.site import Pooler, Site, site_of
from tests.faults.talk import close_history, quiet
from tests.faults.whatsapp import (
    connect,
    evidence_of,
    quiet_after,
    settings_with,
    tracebacks,
)
from tests.faults.whatsapp_checker import judge
from tests.faults.whatsapp_site import (
    FaultyEvolution,
    FaultyModel,
    Persons,
    Shares,
    lines,
)
from tests.postgres import PostgresServer, run_sql

Figures = dict[str, Any]

ROUNDS: tuple[tuple[int, Pooler], ...] = (
    (2, ""),
    (3, "session"),
    (3, ""),
    (2, "transaction"),
)
"""How many processes, and which PgBouncer is before the database, by turns."""

_ROUND_SECONDS = 150.0
_LEAST_REST_SECONDS = 3.0
_TWO_AT_ONCE = 0.2
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 0.2
_WANTS = "model:mode=answer,tokens=40,interval_ms=150"


class Plan(NamedTuple):
    """How much is asked, and what goes wrong meanwhile.

    `slack` is how many seconds longer a kill's closing and readiness may take, for a
    busy machine. `pause` is how far the begins of two faults are apart, at least and at
    most.
    """

    seconds: float
    slack: float = 0.0
    faults: Sequence[Fault] = FAULTS
    pause: tuple[float, float] = (10.0, 40.0)
    persons: int = 100
    webhooks_per_second: float = 10.0


class Watch:
    """Notes which process is ready, and who was declared dead, as it happens.

    It asks the processes by HTTP, and the database by a way that no fault cuts but a
    crash of PostgreSQL.
    """

    def __init__(self, site: Site, history: History) -> None:
        self._site = site
        self._history = history
        self._connection: psycopg2.extensions.connection | None = None
        self._dead: set[str] = set()
        self._closed: set[int] = set()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch until the end of the block."""
        tasks = [asyncio.create_task(self._look_on())]
        tasks += [asyncio.create_task(self._ask(s)) for s in self._site.servers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._connection is not None:
                self._connection.close()

    async def _ask(self, server: Server) -> None:
        was = None
        while True:
            is_ready = False
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                answer = await call(
                    server, "GET", "/ready", user="watch", within_seconds=1.0
                )
                is_ready = answer.status == 200
            if is_ready != was:
                self._history.add(server.name, "ev", "ready", is_ready=is_ready)
                was = is_ready
            await asyncio.sleep(_ASK_SECONDS)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(psycopg2.Error):
                self._note(await asyncio.to_thread(self._look))

    def _look(self) -> list[tuple[str, int, bool, int]]:
        """Give each process: its row's id, its pid, whether dead, its live replies."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(self._site.fleet.dsn)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT p.id::text, p.pid, p.dead_at IS NOT NULL, (SELECT count(*)"
                " FROM viva.live_replies AS l WHERE l.owner = p.id)"
                " FROM viva.processes AS p"
            )
            return list(cursor.fetchall())

    def _note(self, rows: list[tuple[str, int, bool, int]]) -> None:
        for process, pid, is_dead, _ in rows:
            if is_dead and process not in self._dead:
                self._dead.add(process)
                name = self._name_of(pid)
                self._history.add(name, "ev", "dead", process=process, pid=pid)
        left = {pid for _, pid, is_dead, live in rows if live or not is_dead}
        for kill in list(self._history.of("kill")):
            pid = kill.facts["pid"]
            if kill.kind == "invoke" and pid not in left | self._closed:
                self._closed.add(pid)
                self._history.add(kill.by, "ok", "kill", pid=pid)

    def _name_of(self, pid: int) -> str:
        """The server that ran under this pid, now or before it was killed."""
        for kill in self._history.of("kill"):
            if kill.facts["pid"] == pid:
                return kill.by
        return next((s.name for s in self._site.servers if s.pid == pid), "unknown")


class Deck:
    """Deals all faults before it deals one again, as the seed says."""

    def __init__(self, faults: Sequence[Fault], chance: random.Random) -> None:
        self.chance = chance
        self._all = faults
        self._faults: list[Fault] = []

    def deal(self, site: Site, but: Part | None = None) -> Fault | None:
        """Give a fault that fits the site, not of this part; None if there is none."""
        for fault in self._cards():
            if fault.fits(site) and fault.part != but:
                self._faults.remove(fault)
                return fault
        return None

    def _cards(self) -> Iterator[Fault]:
        yield from list(self._faults)
        self._faults += self.chance.sample(self._all, len(self._all))
        yield from list(self._faults)


class Nemesis:
    """Injects one fault after the other, sometimes two at once, and notes them."""

    def __init__(self, plan: Plan, site: Site, history: History, deck: Deck) -> None:
        self._plan = plan
        self._site = site
        self._history = history
        self._deck = deck
        site.chance = deck.chance
        self._count = 0

    async def run(self) -> None:
        """Inject faults for about as long as the plan says."""
        until = time.monotonic() + self._plan.seconds
        await asyncio.sleep(_LEAST_REST_SECONDS)
        while True:
            began, chance = time.monotonic(), self._deck.chance
            pause = chance.uniform(*self._plan.pause)
            first = self._deck.deal(self._site)
            assert first is not None, "no fault fits this site"
            to_come = [self._inject(first)]
            if chance.random() < _TWO_AT_ONCE:
                after = chance.uniform(0.0, 5.0)
                if second := self._deck.deal(self._site, first.part):
                    to_come.append(self._inject(second, after))
            async with asyncio.TaskGroup() as group:
                for standing in to_come:
                    group.create_task(standing)
            rest = began + pause - time.monotonic()
            rest = max(rest, _LEAST_REST_SECONDS)
            if time.monotonic() + rest > until:
                await asyncio.sleep(max(0.0, until - time.monotonic()))
                return
            await asyncio.sleep(rest)

    def _inject(self, fault: Fault, after: float = 0.0) -> Coroutine[Any, Any, None]:
        """Decide whom it meets and for how long, so that a seed decides; then do it."""
        servers = self._site.servers
        on = servers if fault.is_for_all else [self._deck.chance.choice(servers)]
        return self._stand(fault, on, self._deck.chance.uniform(*fault.seconds), after)

    async def _stand(
        self, fault: Fault, on: Sequence[Server], seconds: float, after: float
    ) -> None:
        await asyncio.sleep(after)
        self._count += 1
        facts: dict[str, Any] = {
            "number": self._count,
            "name": fault.name,
            "effect": fault.effect,
            "on": [server.name for server in on],
            "is_alone": not fault.is_for_all,
        }
        print(f"  {fault.name}: {', '.join(facts['on'])}, {seconds:.1f} s", flush=True)
        self._history.add("nemesis", "invoke", "fault", **facts)
        async with fault.inject(self._site, self._history, on):
            await asyncio.sleep(seconds)
        self._history.add("nemesis", "ok", "fault", **facts)


class Round:
    """Some of the faults on one site, from its start to the verdict."""

    def __init__(
        self, plan: Plan, site: Site, model: FaultyModel, evolution: FaultyEvolution
    ) -> None:
        self.history = History()
        self._plan = plan
        self._site = site
        self._model = model
        self._evolution = evolution
        self._persons = Persons(evolution)

    async def start(self, processes: int, log_folder: Path) -> None:
        """Start the processes; the first one's log is read by a program of its own."""
        for number in range(processes):
            settings = settings_with(self._evolution)
            settings["whatsapp_sends_per_minute"] = "100000"
            server = await self._site.add(**settings)
            if number == 0:
                server.is_piped = True
                server.log_file = log_folder / server.log_file.name
            await self._site.run(server)
        await connect(self._site.fleet, self._evolution)
        self.history.add("nemesis", "ok", "fault", number=0, name="start")

    async def run(self, deck: Deck) -> None:
        """Ask and inject faults, and wait until nothing is to be done any more."""
        seconds, history = self._plan.seconds, self.history
        said = lines(
            random.Random(random.random()),
            messages=int(self._plan.webhooks_per_second * seconds),
            chats=int(10 * self._plan.webhooks_per_second),
            seconds=seconds,
        )
        crowd = Crowd(
            history,
            lambda: self._site.servers,  # a killed one refuses
            self._plan.persons,
            wants=_WANTS,
            within_seconds=120.0,
        )
        watch, nemesis = (
            Watch(self._site, history),
            Nemesis(self._plan, self._site, history, deck),
        )
        async with watch.watching(), crowd, asyncio.TaskGroup() as group:
            group.create_task(self._persons.write(said))
            group.create_task(nemesis.run())
        dsn = self._site.fleet.dsn
        with contextlib.suppress(TimeoutError):  # what is not done by then is judged
            await quiet(dsn)
        await quiet_after(dsn, self._evolution, len(said), 60.0)

    def judged(self) -> tuple[Figures, list[str]]:
        """Give the figures, and what was broken."""
        dsn, history = self._site.fleet.dsn, self.history
        close_history(history, dsn, self._model)
        owned = "SELECT message_id::text, owner::text FROM campaign.owned"
        history.owners = dict(run_sql(dsn, owned))
        pooler = self._site.pooler
        is_slow = pooler is not None and pooler.mode == "transaction"
        chat = check(
            history,
            least_done=self._plan.persons,
            closed_seconds=CLOSED_AFTER_FAULT_SECONDS if is_slow else CLOSED_SECONDS,
            slack_seconds=self._plan.slack,
        )
        evidence = evidence_of(dsn, self._persons, self._model, self._evolution)
        was_ahead = "clock ahead" in {e.facts.get("name") for e in history.of("fault")}
        ahead_seconds = CLOCK_AHEAD_SECONDS if was_ahead else 0
        whatsapp = judge(replace(evidence, clock_ahead_seconds=ahead_seconds))
        broken = [f"{b.invariant} {b.what}" for b in chat.broken]
        broken += [f"WhatsApp {what}" for what in whatsapp.broken]
        if chat.word == "unknown":
            broken.append(f"nothing was done: {chat.figures}")
        figures: Figures = {
            **chat.figures,
            **{f"webhooks_{name}": n for name, n in whatsapp.figures.items()},
            "tracebacks": tracebacks(self._site.fleet),
        }
        return figures, broken


async def random_faults(postgres: PostgresServer, folder: Path, plan: Plan) -> Figures:
    """Run rounds of the plan, each on a fresh database and judged by itself.

    Histories and logs are kept in `folder`.

    Raises:
        AssertionError: a promise was broken; what, stands in the text.
    """
    deck, broken = Deck(plan.faults, random.Random(random.random())), list[str]()
    total, slowest = Counter[str](), dict[str, float]()
    count = max(1, round(plan.seconds / _ROUND_SECONDS))
    for number in range(count):
        place = folder / f"round-{number}"
        place.mkdir(mode=0o711)
        figures, found = await _round(
            postgres,
            place,
            plan._replace(seconds=plan.seconds / count),
            deck,
            *ROUNDS[number % len(ROUNDS)],
        )
        print(f"  {figures}", *found[:20], sep="\n  ", flush=True)
        broken += [f"round {number}: {each}" for each in found]
        for name, value in figures.items():
            if isinstance(value, float):
                slowest[name] = max(value, slowest.get(name, 0.0))
            else:
                total[name] += value
    result: Figures = {**total, **slowest}
    result["broken"] = dict(Counter(each.split(" ")[2] for each in broken))
    print(f" {result}", flush=True)
    assert not broken, "\n".join(broken[:40])
    return result


async def _round(
    postgres: PostgresServer,
    folder: Path,
    plan: Plan,
    deck: Deck,
    processes: int,
    pooler: Pooler,
) -> tuple[Figures, list[str]]:
    print(f" {processes} processes, PgBouncer: {pooler or 'none'}", flush=True)
    model = FaultyModel(0.0, random.Random())
    evolution = FaultyEvolution(random.Random(), Shares(0.0, 0.0, 0.0), scale=0.05)
    with postgres.database() as dsn:
        async with (
            model,
            evolution,
            site_of(postgres, dsn, model, folder, pooler) as site,
        ):
            this = Round(plan, site, model, evolution)
            try:
                await this.start(processes, folder)
                await this.run(deck)
                return this.judged()
            finally:
                this.history.write(folder / "history.jsonl")
