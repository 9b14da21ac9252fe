"""Scenario: people write on WhatsApp while everything around the answer fails.

Each message is answered once and in order, through kills of our processes, restarts of
PostgreSQL, and a model and an Evolution API that fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Any

from tests.faults.fleet import Fleet, Server, fleet_of
from tests.faults.whatsapp_checker import Evidence, Part, Row, Turn, Verdict, judge
from tests.faults.whatsapp_harm import Nemesis, Plan
from tests.faults.whatsapp_site import (
    INSTANCES,
    FaultyEvolution,
    FaultyModel,
    Persons,
    lines,
)
from tests.postgres import PostgresServer, run_sql
from tests.programs import free_port

Figures = dict[str, Any]

HOOK_SECRET = "a secret of the webhook"


async def answered_under_faults(
    postgres: PostgresServer, folder: Path, plan: Plan, seed: int | None = None
) -> Figures:
    """Let persons write while the plan's harm is done; every message has one answer.

    The database is a fresh one; `folder` is for logs.

    Raises:
        AssertionError: one was lost, doubled or out of order, or something is not done.
    """
    seed = random.randrange(10**6) if seed is None else seed
    with postgres.database() as dsn:
        return await _answered_under_faults(postgres, dsn, folder, plan, seed)


async def _answered_under_faults(
    postgres: PostgresServer, dsn: str, folder: Path, plan: Plan, seed: int
) -> Figures:
    chance = random.Random(seed)
    print(f"seed {seed}, {plan}", flush=True)
    began = time.monotonic()
    model = FaultyModel(plan.model_share, chance)
    evolution = FaultyEvolution(chance, plan.shares, law=plan.law, scale=plan.scale)
    async with model, evolution, fleet_of(dsn, model, folder) as fleet:
        await _start(fleet, evolution, plan)
        persons = Persons(evolution)
        nemesis = Nemesis(plan, chance, fleet, postgres, evolution)
        said = lines(
            chance, messages=plan.messages, chats=plan.chats, seconds=plan.seconds
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(persons.write(said))
            group.create_task(nemesis.run())
        quiet = await quiet_after(dsn, evolution, plan.messages, plan.quiet_seconds)

        verdict = judge(evidence_of(dsn, persons, model, evolution))
        figures: Figures = {**verdict.figures, **_circumstances(dsn, nemesis, model)}
        figures["tracebacks"] = tracebacks(fleet)
    figures |= {"seed": seed, "law": plan.law, "quiet_after_s": round(quiet, 1)}
    figures["seconds"] = round(time.monotonic() - began, 1)
    _check(verdict, figures)
    return figures


def tracebacks(fleet: Fleet) -> int:
    """Count what the servers did not expect; the first of each is printed."""
    logs = [
        server.log.split("Traceback (most recent call last):")
        for server in fleet.servers
    ]
    for before, *found in logs:
        for text in found[:1]:
            print(before[-500:], "Traceback", text[:4000], flush=True)
    return sum(len(found) for _, *found in logs)


def _check(verdict: Verdict, figures: Figures) -> None:
    print(figures, flush=True)
    assert verdict.held, "\n".join([str(figures), *verdict.broken[:20]])


async def _start(fleet: Fleet, evolution: FaultyEvolution, plan: Plan) -> None:
    for _ in range(plan.processes):
        server = fleet.add(armed=plan.armed, **settings_with(evolution))
        await fleet.run(server)
    await connect(fleet, evolution)


def settings_with(evolution: FaultyEvolution) -> dict[str, str]:
    """Give what a server of a fleet needs to answer on WhatsApp, on a fixed port."""
    return {
        "port": str(free_port()),
        "worker": "1",
        "evolution_url": evolution.url,
        "evolution_api_key": evolution.api_key,
        "webhook_secret": HOOK_SECRET,
        "whatsapp_debounce_seconds": "0.5",
        "whatsapp_replies_per_10_minutes": "1000",
    }


async def connect(fleet: Fleet, evolution: FaultyEvolution) -> None:
    """Send webhooks to the fleet; each instance's and the global one have their own."""
    hooks = [f"{_origin(server)}/api/v1/webhook/evolution" for server in fleet.servers]
    headers = {"Authorization": f"Bearer {HOOK_SECRET}"}
    for number, instance in enumerate(INSTANCES):
        hook = hooks[number % len(hooks)]
        evolution.add_webhook(hook, instance, headers=headers, by_events=True)
    # The global webhook has no headers; its tail ends up behind the token.
    token = HOOK_SECRET.replace(" ", "%20")
    evolution.add_webhook(f"{hooks[-1]}?token={token}", by_events=True)
    for instance in INSTANCES:
        await _make_known(fleet.dsn, evolution, instance)


def _origin(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def _make_known(dsn: str, evolution: FaultyEvolution, instance: str) -> None:
    """Let an instance deliver once: missed messages of unknown ones are not sought."""
    evolution.receive("oi", jid="120363000000000000@g.us", instance=instance)
    await evolution.webhooks.settled(60.0)
    known = f"SELECT 1 FROM viva.inbox WHERE instance = '{instance}'"
    assert run_sql(dsn, known), f"no delivery of {instance} came"


_UNDONE = """
SELECT count(*) FROM (
    SELECT 1 FROM viva.whatsapp_messages WHERE turn_id IS NULL AND why_not IS NULL
    UNION ALL SELECT 1 FROM viva.whatsapp_turns WHERE state = 'running'
    UNION ALL SELECT 1 FROM viva.outbox WHERE state IN ('waiting', 'sending')
    UNION ALL SELECT 1 FROM viva.inbox WHERE is_pending
    UNION ALL SELECT 1 FROM viva.live_replies
) AS undone
"""


async def quiet_after(
    dsn: str, evolution: FaultyEvolution, messages: int, within_seconds: float
) -> float:
    """Wait until nothing is to be done; give the seconds. What stays is judged."""
    began = time.monotonic()
    # Those two that made the instances known are of groups, and not answered.
    stored = "SELECT count(*) FROM viva.whatsapp_messages WHERE why_not IS NULL"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            await evolution.webhooks.settled(within_seconds)
            while run_sql(dsn, stored)[0][0] < messages or _undone(dsn):
                await asyncio.sleep(0.25)
            await evolution.webhooks.settled(within_seconds)
            while _undone(dsn):
                await asyncio.sleep(0.25)
    return time.monotonic() - began


def _undone(dsn: str) -> int:
    return int(run_sql(dsn, _UNDONE)[0][0])


def evidence_of(
    dsn: str, persons: Persons, model: FaultyModel, evolution: FaultyEvolution
) -> Evidence:
    found_at = dict(
        run_sql(
            dsn,
            "SELECT message_id, extract(EPOCH FROM received_at)::float8 FROM viva.inbox"
            " WHERE headers ->> 'User-Agent' = 'viva-server catch-up'"
            " AND event = 'messages.upsert'",
        )
    )
    rows = run_sql(
        dsn, "SELECT message_id, turn_id, why_not FROM viva.whatsapp_messages"
    )
    turns = run_sql(
        dsn,
        "SELECT id, state, extract(EPOCH FROM created_at)::float8"
        " FROM viva.whatsapp_turns",
    )
    parts = run_sql(
        dsn,
        "SELECT turn_id, seq, state, message_id,"
        " jsonb_path_exists(attempts, '$[*] ? (@.outcome == \"unknown\")')"
        " FROM viva.outbox",
    )
    return Evidence(
        said=persons.said(found_at),
        asked=model.questions,
        got=evolution.got,
        rows=[Row(*row) for row in rows],
        turns=[Turn(*turn) for turn in turns],
        parts=[Part(*part) for part in parts],
    )


def _circumstances(dsn: str, nemesis: Nemesis, model: FaultyModel) -> Figures:
    """Tell what went wrong on the way, and how long a dead process was missed."""
    dead = dict(
        run_sql(
            dsn,
            "SELECT id::text, extract(EPOCH FROM dead_at)::float8 FROM viva.processes"
            " WHERE dead_at IS NOT NULL",
        )
    )
    waits = [
        dead[kill.owner] - kill.at
        for kill in nemesis.kills
        if kill.is_timed and kill.owner in dead
    ]
    [[turns, runs, caught_up, doubles]] = run_sql(
        dsn,
        "SELECT count(*), sum(runs), (SELECT count(*) FROM viva.inbox"
        " WHERE headers ->> 'User-Agent' = 'viva-server catch-up'"
        " AND event = 'messages.upsert'),"
        " (SELECT sum(deliveries - 1) FROM viva.inbox) FROM viva.whatsapp_turns",
    )
    return {
        "turns": turns,
        "runs": int(runs or 0),
        "asked": len(model.requests),
        "caught_up": caught_up,
        "duplicate_deliveries": int(doubles or 0),
        "kills": len(nemesis.kills),
        "take_overs_timed": len(waits),
        "take_over_max_s": round(max(waits, default=0.0), 2),
    }
