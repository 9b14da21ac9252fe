"""Scenarios: the database crashes, goes away and comes back. Each gives figures."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.client import Stream, call, read_all
from tests.faults.crowd import Crowd, judge, last_of, opened
from tests.faults.fleet import Fleet, Server
from tests.faults.history import History
from tests.faults.talk import dump, quiet
from tests.postgres import PostgresServer, run_sql

Figures = dict[str, Any]


async def crashes(
    fleet: Fleet,
    model: FakeModel,
    postgres: PostgresServer,
    *,
    streams: Sequence[int],
    away_seconds: float,
    is_crash: bool = True,
    armed: Sequence[str] = (),
    tokens: int = 150,
    interval_ms: float = 50,
    stays_seconds: float = 0.0,
) -> Figures:
    """Every stream pauses, goes on and ends whole; nobody is declared dead.

    `streams` are the numbers of readers of each process.
    """
    model.scripts = [Script(tokens=tokens, interval_ms=interval_ms)]
    history = History()
    servers = await fleet.start(len(streams), armed=armed)
    async with asyncio.TaskGroup() as group:
        for server, persons in zip(servers, streams, strict=True):
            group.create_task(
                _through_the_outage(
                    fleet, postgres, history, server, persons, away_seconds, is_crash
                )
                if server is servers[0]
                else _talk(history, server, persons)
            )
    back = max(event.facts["after"] for event in history.of("back"))
    print(f"PostgreSQL took {back:.1f} s to start")
    verdict = await judge(fleet, model, history, least_done=sum(streams))
    await asyncio.sleep(stays_seconds)
    dead = run_sql(
        fleet.dsn, "SELECT count(*) FROM viva.processes WHERE dead_at IS NOT NULL"
    )
    assert dead[0][0] == 0, "somebody was declared dead"
    ends = {
        (m.status, m.finish_reason) for m in dump(fleet.dsn) if m.role == "assistant"
    }
    assert ends == {("complete", "stop")}, ends
    assert verdict.figures["accepted"] == sum(streams), "some were cut and came back"
    return {
        "streams": list(streams),
        "away_s": round(away_seconds + back, 1),
        "whole": verdict.figures["done"],
        "declared_dead": 0,
    }


async def _talk(history: History, server: Server, persons: int) -> None:
    async with Crowd(history, lambda: [server], persons, questions=1):
        pass


async def _through_the_outage(
    fleet: Fleet,
    postgres: PostgresServer,
    history: History,
    server: Server,
    persons: int,
    away_seconds: float,
    is_crash: bool,
) -> None:
    async with Crowd(history, lambda: [server], persons, questions=1) as crowd:
        await crowd.all_have_text()
        await asyncio.sleep(0.5)
        await (postgres.crash() if is_crash else postgres.stop())
        await asyncio.sleep(away_seconds)
        began = time.monotonic()
        await postgres.start()
        history.add("postgres", "ev", "back", after=time.monotonic() - began)


async def stays_away(
    fleet: Fleet,
    model: FakeModel,
    postgres: PostgresServer,
    *,
    away_seconds: float,
    cut_after: float,
    armed: Sequence[str] = (),
    readers: int = 20,
) -> Figures:
    """Readers are cut without an ending; the text is kept and stored after all."""
    model.scripts = [Script(tokens=400, interval_ms=20)]
    (server,) = await fleet.start(1, armed=armed)
    streams = await opened(server, [f"person {n}" for n in range(readers)], "speak")
    tasks = [asyncio.create_task(read_all(stream)) for stream in streams]
    await asyncio.sleep(0.5)
    await postgres.stop()
    gone_at = time.monotonic()
    async with asyncio.timeout(cut_after + 5):
        await asyncio.gather(*tasks)
    ready = await call(server, "GET", "/ready", user="person 0")
    assert ready.status == 503
    cuts = [stream.ended_at - gone_at for stream in streams]
    assert all(s.ended == "broken" and last_of(s) is None for s in streams)
    assert min(cuts) > cut_after - 1.5
    comments = min(stream.comments for stream in streams)
    await asyncio.sleep(max(0.0, away_seconds - (time.monotonic() - gone_at)))
    await postgres.start()
    back_at = time.monotonic()
    await _until_ready(server)
    ready_after = time.monotonic() - back_at
    await quiet(fleet.dsn)
    stored = {m.id: m for m in dump(fleet.dsn)}
    sent = {request.message: request.text for request in model.requests}
    for number, stream in enumerate(streams):
        reply = stored[stream.headers["viva-message-id"]]
        assert reply.text == sent[f"person {number}: speak"], "text was lost"
        assert reply.text.startswith(stream.text)
    return {
        "readers": readers,
        "away_s": away_seconds,
        "cut_first_s": round(min(cuts), 1),
        "cut_last_s": round(max(cuts), 1),
        "keep_alives_seen": comments,
        "ready_after_return_s": round(ready_after, 2),
    }


async def _until_ready(server: Server) -> None:
    async with asyncio.timeout(20):
        while (await call(server, "GET", "/ready", user="x")).status != 200:
            await asyncio.sleep(0.05)


async def answers_while_away(
    fleet: Fleet, model: FakeModel, postgres: PostgresServer
) -> Figures:
    """New messages get 503 with Retry-After, soon; /health stays 200."""
    (server,) = await fleet.start(1)
    await postgres.stop()
    began = time.monotonic()
    answers = await asyncio.gather(
        *(
            call(server, "POST", "/viva/chat", user=f"p{n}", body={"mensagem": "oi"})
            for n in range(20)
        )
    )
    took = time.monotonic() - began
    assert {answer.status for answer in answers} == {503}
    assert all("retry-after" in answer.headers for answer in answers)
    health = await call(server, "GET", "/health", user="p")
    assert health.status == 200
    await postgres.start()
    await _until_ready(server)
    model.scripts = [Script(tokens=3)]
    stream = await Stream.open(
        server.port, "POST", "/viva/chat/stream", user="p", body={"mensagem": "oi"}
    )
    assert last_of(await read_all(stream)) is not None
    return {"posts": len(answers), "slowest_503_s": round(took, 2)}


async def told_to_stop_while_away(
    fleet: Fleet, model: FakeModel, postgres: PostgresServer, *, readers: int
) -> Figures:
    """SIGTERM without a database: in time, no false `done`; the next start closes."""
    model.scripts = [Script(tokens=1000, interval_ms=20)]
    (server,) = await fleet.start(1)
    streams = await opened(server, [f"person {n}" for n in range(readers)], "speak")
    tasks = [asyncio.create_task(read_all(stream)) for stream in streams]
    await postgres.stop()
    await asyncio.sleep(0.5)
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    code = await server.exit_code()
    took = time.monotonic() - began
    await asyncio.gather(*tasks)
    assert all(s.ended == "broken" and last_of(s) is None for s in streams)
    assert took < 6.5, f"{took:.1f} s"
    await postgres.start()
    await fleet.start(1)
    await quiet(fleet.dsn, within_seconds=60)
    stored = {m.id: m for m in dump(fleet.dsn)}
    for stream in streams:
        reply = stored[stream.headers["viva-message-id"]]
        assert reply.text.startswith(stream.text)
        assert (reply.status, reply.finish_reason) == ("partial", "crashed")
    return {"readers": readers, "exit_s": round(took, 2), "exit_code": code}


_END = "SELECT pg_terminate_backend(backend.pid) FROM"
_HEARTBEAT_OF = """ pg_locks AS backend, viva.processes
    WHERE locktype = 'advisory' AND id = '{}'
    AND lock_key = (CAST(classid AS bigint) << 32) | CAST(objid AS bigint)"""
_ALL_OTHERS = """ pg_stat_activity AS backend
    WHERE datname = current_database() AND backend.pid <> pg_backend_pid()"""


async def loses_connections(fleet: Fleet, model: FakeModel, *, times: int) -> Figures:
    """The heartbeat's connection is lost, then all are, again and again."""
    model.scripts = [Script(tokens=60, interval_ms=20)]
    history = History()
    server, _ = await fleet.start(2)
    await fleet.may_judge()
    async with Crowd(history, lambda: [server], 20) as crowd:
        await crowd.all_have_text()
        for what in (_HEARTBEAT_OF.format(server.owner), _ALL_OTHERS):
            for _ in range(times):
                await asyncio.sleep(random.uniform(0.3, 1.2))
                async with asyncio.timeout(5):  # it may be connecting just now
                    while not run_sql(fleet.dsn, _END + what):
                        await asyncio.sleep(0.02)
    verdict = await judge(fleet, model, history, least_done=20)
    dead = "SELECT count(*) FROM viva.processes WHERE dead_at IS NOT NULL"
    assert run_sql(fleet.dsn, dead)[0][0] == 0, "somebody was declared dead"
    cuts = sum(talk.cuts for talk in crowd.talks)
    return {"times": 2 * times, "cuts": cuts, **verdict.figures}
