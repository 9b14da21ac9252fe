"""The harm that is done while people write on WhatsApp: kills, restarts, absences."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from tests.fakes.evolution_webhooks import Law
from tests.faults.fleet import Fleet, Server
from tests.faults.whatsapp_site import FaultyEvolution, Shares
from tests.postgres import PostgresServer

_JUDGED_SECONDS = 15.5
"""PostgreSQL's age from which a death is judged at once."""


class Plan(NamedTuple):
    """How much is written, and how much goes wrong meanwhile."""

    messages: int
    chats: int
    seconds: float
    processes: int = 2
    kills: int = 0
    kills_of_all: int = 0
    restarts: int = 0
    absences: int = 0
    """How often nobody listens at Evolution's port, for a second."""
    model_share: float = 0.05
    shares: Shares = Shares()
    law: Law = "2.3"
    scale: float = 0.02
    armed: Sequence[str] = ("mutant:short_catch_up",)
    quiet_seconds: float = 300.0


class Kill(NamedTuple):
    """A process that was killed; `is_timed`: nothing else delays its take-over."""

    owner: str
    at: float
    is_timed: bool


class Nemesis:
    """Does the plan's harm, one deed after the other, at random times."""

    def __init__(
        self,
        plan: Plan,
        chance: random.Random,
        fleet: Fleet,
        postgres: PostgresServer,
        evolution: FaultyEvolution,
    ) -> None:
        self._plan = plan
        self._chance = chance
        self._fleet = fleet
        self._postgres = postgres
        self._evolution = evolution
        self._database_since = time.time()
        self.kills: list[Kill] = []

    async def run(self) -> None:
        """Do all deeds in about the time in which the persons write."""
        deeds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *[self._kill_one] * self._plan.kills,
            *[self._kill_all] * self._plan.kills_of_all,
            *[self._restart_database] * self._plan.restarts,
            *[self._evolution_away] * self._plan.absences,
        ]
        self._chance.shuffle(deeds)
        pause = self._plan.seconds / max(len(deeds), 1)
        began = time.monotonic()
        for number, deed in enumerate(deeds):
            at = began + (number + self._chance.random()) * pause
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await deed()

    async def _kill_one(self) -> None:
        victim = self._chance.choice(self._fleet.servers)
        await self._kill([victim], is_timed=self._may_judge)
        await asyncio.sleep(self._chance.uniform(0.0, 1.5))
        await self._fleet.run(victim)

    async def _kill_all(self) -> None:
        await self._kill(self._fleet.servers, is_timed=False)
        await asyncio.sleep(self._chance.uniform(0.0, 1.5))
        for server in self._fleet.servers:
            await self._fleet.run(server)

    async def _restart_database(self) -> None:
        """Stop it in order or crash it, by turns of chance."""
        if self._chance.random() < 0.5:
            await self._postgres.crash()
        else:
            await self._postgres.stop()
        await asyncio.sleep(self._chance.uniform(0.0, 1.5))
        await self._postgres.start()
        self._database_since = time.time()
        self.kills = [kill._replace(is_timed=False) if self._is_open(kill) else kill
                      for kill in self.kills]  # fmt: skip

    def _is_open(self, kill: Kill) -> bool:
        return time.time() - kill.at < _JUDGED_SECONDS

    async def _evolution_away(self) -> None:
        await self._evolution.stop()
        await asyncio.sleep(1.0)
        await self._evolution.start()

    async def _kill(self, victims: Sequence[Server], *, is_timed: bool) -> None:
        for victim in victims:
            self.kills.append(Kill(victim.owner, time.time(), is_timed))
            await victim.kill()

    @property
    def _may_judge(self) -> bool:
        return time.time() - self._database_since > _JUDGED_SECONDS
