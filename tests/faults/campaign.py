"""The long versions of the fault tests, with figures.

    python -m tests.faults.campaign --seconds 1200 --kills 500 --json campaign.json
    python -m tests.faults.campaign --only random,kill_random

It runs in namespaces of its own where the machine lets it (root, unshare), so nothing
that it starts or changes outlives it. Each scenario runs on a database of its own, with
fsync on. A failure is a figure too: the campaign goes on and exits 1 at its end. Seeds
are printed; `--seed` repeats one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.fakes.model import FakeModel
from tests.faults import (
    cuts,
    dying,
    large_bodies,
    leaving,
    outage,
    random_faults,
    site_scenes,
    vanishing,
    whatsapp_campaign,
)
from tests.faults.armed import POINTS
from tests.faults.client import Stream
from tests.faults.fleet import Fleet, fleet_of
from tests.faults.injection import FAULTS
from tests.faults.proxy import Mode
from tests.faults.site import FaultyPostgres, is_isolated, isolate
from tests.postgres import PostgresServer, data_folder

Figures = dict[str, Any]
_ROUND_KILLS = 20


class World:
    """What a scenario of the campaign gets."""

    def __init__(self, postgres: PostgresServer, options: argparse.Namespace) -> None:
        self.postgres = postgres
        self.options = options
        self.kills: int = options.kills

    @contextlib.asynccontextmanager
    async def fleet(self) -> AsyncIterator[tuple[Fleet, FakeModel]]:
        """Give a fleet and a model on a fresh database."""
        with tempfile.TemporaryDirectory() as folder, self.postgres.database() as dsn:
            async with FakeModel() as model, fleet_of(dsn, model, Path(folder)) as all_:
                try:
                    yield all_, model
                finally:
                    Stream.abort_all()


async def random_(world: World) -> Figures:
    """Faults at random between servers and database, `--seconds` long."""
    options = world.options
    names = tuple(options.faults.split(","))
    faults = [fault for fault in FAULTS if fault.name.startswith(names)]
    plan = random_faults.Plan(options.seconds, options.slack, faults)
    return await random_faults.random_faults(world.postgres, options.keep, plan)


async def kill_random(world: World) -> Figures:
    """kill -9 at random times, in rounds, each judged by itself."""
    total: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    slowest = declared = 0.0
    while total["kills"] < world.kills:
        count = min(_ROUND_KILLS, world.kills - total["kills"])
        async with world.fleet() as (fleet, model):
            figures = await dying.killed_at_random(fleet, model, kills=count)
        slowest = max(slowest, figures["take_over_max_s"])
        declared = max(declared, figures["declared_dead_max_s"])
        ended.update({str(reason): n for reason, n in figures["ended"].items()})
        total.update({k: v for k, v in figures.items() if isinstance(v, int)})
        print(
            f"  {total['kills']} kills, slowest {slowest:.2f} s "
            f"(declared {declared:.2f} s)",
            flush=True,
        )
    bound = f"< {3 / total['kills']:.2%} a kill (95 %)"
    return {
        **total,
        "ended": dict(ended),
        "take_over_max_s": slowest,
        "declared_dead_max_s": declared,
        "bound": bound,
    }


async def kill_points(world: World) -> Figures:
    """kill -9 at every named point, `--kills` / 20 times each."""
    points = [point for point in POINTS if not point.startswith("close_dead")]
    trials, slowest = 0, 0.0
    for _ in range(max(1, world.kills // 20)):
        for begin in range(0, len(points), 4):
            async with world.fleet() as (fleet, model):
                model.scripts = [dying.SHORT_REPLY]
                chosen = points[begin : begin + 4]
                figures = await dying.killed_at(fleet, model, chosen)
                trials += len(chosen)
                slowest = max(slowest, figures["take_over_max_s"])
    return {"points": len(points), "trials": trials, "take_over_max_s": slowest}


async def kill_closing_dead(world: World) -> Figures:
    """kill -9 of a process that closes a dead one, before, in and after its commit."""
    slowest, trials = 0.0, 0
    for _ in range(5):
        for moment in ("before", "during", "after"):
            async with world.fleet() as (fleet, model):
                model.scripts = [dying.SHORT_REPLY]
                figures = await dying.killed_while_closing(fleet, model, moment)
            slowest, trials = max(slowest, figures["take_over_s"]), trials + 1
    return {"trials": trials, "take_over_max_s": slowest}


async def frozen(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await dying.frozen(fleet, model, seconds=20.0, persons=40)


async def sigterm(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await dying.told_to_stop(fleet, model, readers=1000)


async def sigterm_stalled(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await dying.told_to_stop(fleet, model, readers=50, stalled=20)


async def crash_1200(world: World) -> Figures:
    """1200 live streams in one process, 20 in another, under a crash of PostgreSQL."""
    async with world.fleet() as (fleet, model):
        return await outage.crashes(
            fleet,
            model,
            world.postgres,
            streams=[1200, 20],
            away_seconds=3.0,
            tokens=40,
            interval_ms=1000,
            stays_seconds=17.0,
        )


async def crash_often(world: World) -> Figures:
    """Ten crashes of PostgreSQL under 2 × 40 streams."""
    whole = 0
    for _ in range(10):
        async with world.fleet() as (fleet, model):
            figures = await outage.crashes(
                fleet, model, world.postgres, streams=[40, 40], away_seconds=1.0
            )
            whole += figures["whole"]
    return {"crashes": 10, "streams": 800, "whole": whole}


async def away_5(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await outage.crashes(
            fleet,
            model,
            world.postgres,
            streams=[100],
            away_seconds=5.0,
            is_crash=False,
            stays_seconds=17.0,
        )


async def away_40(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await outage.stays_away(
            fleet, model, world.postgres, away_seconds=40.0, cut_after=30.0, readers=100
        )


async def lost_connections(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await outage.loses_connections(fleet, model, times=20)


async def all_are_cut_20(world: World) -> Figures:
    """Reset and refused, or dropped, for 20 s; each comes back when a TCP would."""
    figures: Figures = {}
    modes: tuple[Mode, ...] = ("refuse", "drop")
    for mode in modes:
        with world.postgres.database() as dsn:
            figures[mode] = await cuts.all_are_cut(dsn, mode, 20.0, retransmits=True)
    return figures


async def stopped_while_away(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await outage.told_to_stop_while_away(
            fleet, model, world.postgres, readers=100
        )


async def leavers_0(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await leaving.clients_leave(fleet, model, clients=400, grace=0)


async def leavers_30(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await leaving.clients_leave(fleet, model, clients=400, grace=30)


async def grace_30(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await leaving.grace_runs_out(fleet, model, clients=50, grace=30)


async def one_key(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await leaving.one_key_at_once(fleet, model, clients=200)


async def stalled(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await leaving.readers_stall(fleet, model, stalled=50, deadline=20.0)


async def half_open(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await vanishing.peers_vanish(fleet, model, peers=10, user_timeout=20.0)


async def heavy_bodies(world: World) -> Figures:
    """Webhooks of 64 MiB, one after the other and four at once."""
    async with world.fleet() as (fleet, model):
        return await large_bodies.others_go_on(
            fleet, model, mebibytes=64, media_mebibytes=27
        )


async def purged_in_a_cut(world: World) -> Figures:
    async with world.fleet() as (fleet, model):
        return await site_scenes.purged_in_a_cut(fleet, model)


async def standby_promoted(world: World) -> Figures:
    """A failover to a synchronous standby, 20 s after the primary's end."""
    with tempfile.TemporaryDirectory() as folder:
        async with FakeModel() as model:
            return await site_scenes.standby_promoted(
                world.postgres, model, Path(folder)
            )


async def two_versions(world: World) -> Figures:
    """A process of the version before beside a new one, for 60 s."""
    with tempfile.TemporaryDirectory() as folder:
        async with FakeModel() as model:
            return await site_scenes.two_versions(world.postgres, model, Path(folder))


def _on_whatsapp(
    scenario: Callable[[PostgresServer, Path], Awaitable[Figures]],
) -> Callable[[World], Awaitable[Figures]]:
    async def run_it(world: World) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            return await scenario(world.postgres, Path(folder))

    return run_it


SCENARIOS: dict[str, Callable[[World], Awaitable[Figures]]] = {
    scenario.__name__.rstrip("_"): scenario
    for scenario in (
        random_,
        two_versions,
        standby_promoted,
        purged_in_a_cut,
        kill_points,
        kill_closing_dead,
        frozen,
        sigterm,
        sigterm_stalled,
        crash_1200,
        crash_often,
        away_5,
        away_40,
        lost_connections,
        all_are_cut_20,
        stopped_while_away,
        leavers_0,
        leavers_30,
        grace_30,
        one_key,
        stalled,
        half_open,
        heavy_bodies,
        kill_random,
    )
} | {name: _on_whatsapp(each) for name, each in whatsapp_campaign.SCENARIOS.items()}


async def run(names: list[str], options: argparse.Namespace) -> dict[str, Figures]:
    """Run scenarios one after the other and give their figures."""
    results: dict[str, Figures] = {}
    with data_folder() as folder:
        postgres = PostgresServer(folder, fast_unsafe=False, kind=FaultyPostgres)
        await postgres.start()
        postgres.add_template()
        try:
            for name in names:
                random.seed(f"{options.seed} {name}")
                results[name] = await _measured(name, World(postgres, options))
        finally:
            await postgres.stop()
    return results


async def _measured(name: str, world: World) -> Figures:
    print(f"{name} …", flush=True)
    began = time.monotonic()
    figures: Figures = {}
    try:
        figures = dict(await SCENARIOS[name](world))
        figures["held"] = True
    except Exception as error:
        traceback.print_exc()
        figures = {"held": False, "why": f"{type(error).__name__}: {error}"[:2000]}
        if world.postgres.pid is None:
            await world.postgres.start()
    figures["took_s"] = round(time.monotonic() - began, 1)
    print(f"  {json.dumps(figures, ensure_ascii=False)}", flush=True)
    return figures


def main() -> int:
    isolate("tests.faults.campaign", sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1200.0, help="of `random`")
    parser.add_argument(
        "--slack",
        type=float,
        default=0.0,
        help="seconds by which a busy machine may exceed times",
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", help="names, with commas")
    parser.add_argument("--faults", default="", help="of `random`: names, with commas")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--keep", type=Path, help="a folder for histories and logs")
    options = parser.parse_args()
    options.keep = Path(options.keep or tempfile.mkdtemp(prefix="viva-campaign-"))
    options.keep.mkdir(exist_ok=True)
    names = options.only.split(",") if options.only else list(SCENARIOS)
    print(f"seed {options.seed}, Python {platform.python_version()},"
          f" {'' if is_isolated() else 'not '}isolated, kept in {options.keep}",
          flush=True)  # fmt: skip
    results = asyncio.run(run(names, options))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False))
    return 0 if all(figures["held"] for figures in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
