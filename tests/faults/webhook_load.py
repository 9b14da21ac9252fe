"""Scenarios: webhooks while the model is slow, and very many at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.evolution import FakeEvolution
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.fleet import Server, fleet_of
from tests.faults.webhook_client import (
    HOOK_SECRET,
    Answers,
    Poster,
    message,
    tokens,
)
from tests.faults.whatsapp_site import tokens_of
from tests.postgres import PostgresServer, run_sql
from tests.waiting import until

Figures = dict[str, Any]

_WAITING = (
    "SELECT count(*) FROM viva.whatsapp_messages AS m"
    " LEFT JOIN viva.whatsapp_turns AS t ON t.id = m.turn_id"
    " WHERE t.id IS NULL OR t.state = 'running'"
)


@dataclass(frozen=True, slots=True)
class Door:
    """One server with a model and an Evolution API behind it."""

    dsn: str
    server: Server
    model: FakeModel
    evolution: FakeEvolution

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return run_sql(self.dsn, sql)

    def count(self, sql: str) -> int:
        return int(self.rows(sql)[0][0])

    @contextlib.contextmanager
    def posters(self, connections: int, answers: Answers) -> Iterator[list[Poster]]:
        """Give connections, closed at the end."""
        posters = [Poster(self.server.port, answers) for _ in range(connections)]
        try:
            yield posters
        finally:
            for poster in posters:
                poster.close()


@contextlib.asynccontextmanager
async def door(
    postgres: PostgresServer, folder: Path, script: Script, **settings: str
) -> AsyncIterator[Door]:
    """Run one server on a fresh database."""
    with postgres.database() as dsn:
        async with (
            FakeModel(script) as model,
            FakeEvolution() as evolution,
            fleet_of(dsn, model, folder) as fleet,
        ):
            own = {
                "worker": "1",
                "evolution_url": evolution.url,
                "evolution_api_key": evolution.api_key,
                "webhook_secret": HOOK_SECRET,
            }
            server = fleet.add(armed=(), prefix=(), **own, **settings)
            await fleet.run(server)
            yield Door(dsn, server, model, evolution)


async def slow_model(
    postgres: PostgresServer,
    folder: Path,
    *,
    chats: int,
    model_seconds: float,
    rate: float,
    load_seconds: float,
    connections: int = 16,
) -> Figures:
    """Webhooks are answered while the model thinks about the chats' messages.

    Gives how long each waited from the moment when it was due, so that one that is
    slow does not hide those behind it.
    """
    script = Script(mode="echo", first_ms=1000 * model_seconds)
    async with door(
        postgres,
        folder,
        script,
        whatsapp_turns=str(chats),
        whatsapp_debounce_seconds="0.5",
        model_first_token_seconds=str(model_seconds + 30),
    ) as site:
        answers = Answers()
        names = tokens()
        with site.posters(connections, answers) as posters:
            for chat in range(chats):
                first = message(next(names), chat)
                await posters[0].post(first, time.monotonic())
            await site.model.asked(chats)
            answers.seconds.clear()
            requests = [
                message(next(names), number % chats)
                for number in range(int(rate * load_seconds))
            ]
            await _post_at(posters, requests, rate)
        assert site.evolution.sent == [], "the model was not slow enough"
        thinking = [r for r in site.model.requests if r.closed_at is None]
        assert len(thinking) == chats
        await until(lambda: len(site.evolution.sent) >= chats, 2 * model_seconds + 30)
        assert site.count("SELECT count(*) FROM viva.inbox") >= chats + len(requests)
    return {
        "chats_waiting": chats,
        "model_s": model_seconds,
        "webhooks": len(answers.seconds),
        "per_s": rate,
        "statuses": dict(answers.statuses),
        "p50_ms": answers.percentile_ms(50),
        "p99_ms": answers.percentile_ms(99),
        "max_ms": round(1000 * max(answers.seconds), 1),
    }


async def _post_at(
    posters: Sequence[Poster], requests: Sequence[bytes], rate: float
) -> None:
    """Post at a steady rate, whatever the answers do."""
    began = time.monotonic()
    due = iter([(began + n / rate, r) for n, r in enumerate(requests)])

    async def work(poster: Poster) -> None:
        for at, request in due:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await poster.post(request, at)

    await asyncio.gather(*map(work, posters))


async def burst(
    postgres: PostgresServer,
    folder: Path,
    *,
    webhooks: int,
    chats: int,
    connections: int,
    drain_seconds: float = 300.0,
) -> Figures:
    """Post as fast as the client can; none is lost, and all are answered in time."""
    async with door(postgres, folder, Script(mode="echo")) as site:
        answers = Answers()
        names = list(itertools.islice(tokens(), webhooks))
        requests = [message(name, n % chats) for n, name in enumerate(names)]
        memory = _Memory(site.server)
        began = time.monotonic()
        async with memory.watched():
            await _post_all(site, requests, connections, answers)
            took = time.monotonic() - began
            backlog = await _drained(site, drain_seconds)
            drained = time.monotonic() - began - took
            await until(lambda: _is_sent(site), 60.0)
        _check(site, names)
        await asyncio.sleep(2.0)
        after = site.server.resident_bytes
    return {
        "webhooks": webhooks,
        "chats": chats,
        "connections": connections,
        "took_s": round(took, 2),
        "per_s": round(webhooks / took),
        "p50_ms": answers.percentile_ms(50),
        "p99_ms": answers.percentile_ms(99),
        "statuses": dict(answers.statuses),
        "refused_without_retry_after": answers.without_retry_after,
        "backlog_each_s": backlog,
        "drained_s": round(drained, 1),
        "turns": len(site.evolution.sent),
        "mb_before": _mb(memory.before),
        "mb_peak": _mb(memory.peak),
        "mb_after": _mb(after),
    }


async def _post_all(
    site: Door, requests: Sequence[bytes], connections: int, answers: Answers
) -> None:
    left = iter(requests)

    async def work(poster: Poster) -> None:
        for request in left:
            await poster.post(request, time.monotonic())

    with site.posters(connections, answers) as posters:
        await asyncio.gather(*map(work, posters))


async def _drained(site: Door, within_seconds: float) -> list[int]:
    """Count each second the messages that wait for an answer, until none does."""
    counts: list[int] = []
    async with asyncio.timeout(within_seconds):
        while not counts or counts[-1]:
            counts.append(await asyncio.to_thread(site.count, _WAITING))
            await asyncio.sleep(1.0)
    return counts


def _is_sent(site: Door) -> bool:
    open_sends = "SELECT count(*) FROM viva.outbox WHERE state <> 'sent'"
    return not site.count(open_sends)


def _check(site: Door, names: Sequence[str]) -> None:
    """Each message is in the inbox once and in one reply."""
    stored = site.rows("SELECT message_id, count(*) FROM viva.inbox"
                       " WHERE event = 'messages.upsert' GROUP BY 1")  # fmt: skip
    assert len(stored) == len(names), f"{len(stored)} of {len(names)} are stored"
    assert {count for _, count in stored} == {1}
    told = Counter(
        name for sent in site.evolution.sent for name in tokens_of(sent.text)
    )
    assert told.keys() == set(names), f"{len(told)} of {len(names)} are answered"
    assert set(told.values()) == {1}, "some are answered twice"


class _Memory:
    """The resident memory of a server, looked at ten times a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.before = self.peak = server.resident_bytes

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._server.resident_bytes)
            await asyncio.sleep(0.1)


def _mb(size: int) -> float:
    return round(size / 2**20, 1)
