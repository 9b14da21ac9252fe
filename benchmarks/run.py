"""One run: every subject in turn, round after round, on the same cores."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from benchmarks.load import Plan, plan_line
from benchmarks.postgres import Postgres, Usage
from benchmarks.processes import (
    OTHER_CORES,
    SERVER_CORE,
    cpu_seconds,
    end,
    family_cpu_seconds,
    free_port,
    machine_cpu_seconds,
    on_cores,
    rss_kib,
    running,
    wait_for_port,
)
from benchmarks.scenarios import MEMORY, WARM_UP, Scenario
from benchmarks.subjects import JWT_SECRET, Subject, environment

Record = dict[str, Any]
QUIET_CORES = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """What all subjects share."""

    cluster: Postgres
    model_port: int
    model_pid: int
    log: IO[bytes]


@dataclass(frozen=True, slots=True)
class Live:
    """A subject that runs, with a database of its own."""

    stage: Stage
    subject: Subject
    port: int
    pid: int
    database: str


@dataclass(frozen=True, slots=True)
class Sample:
    """All counters at one moment."""

    server_cpu: float
    postgres_cpu: float
    model_cpu: float
    foreign_cpu: float
    rss_kib: int
    usage: Usage


@contextmanager
def staged(cluster: Postgres, log: IO[bytes]) -> Iterator[Stage]:
    """Run the model beside the cluster."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.model", str(port)]
    with running(command, log, with_input=True) as child:
        wait_for_port(port, child)
        yield Stage(cluster, port, child.pid, log)


@contextmanager
def started(stage: Stage, subject: Subject) -> Iterator[Live]:
    """Run the subject alone on its core, with an empty database."""
    database, port = f"bench_{subject.name}_{time.monotonic_ns()}", free_port()
    url = stage.cluster.create_database(database)
    env = environment(port, stage.model_port, url)
    command = subject.command_line(port)
    with running(command, stage.log, env, SERVER_CORE) as child:
        wait_for_port(port, child)
        yield Live(stage, subject, port, child.pid, database)
    stage.cluster.query("postgres", f"DROP DATABASE {database} WITH (FORCE)")


def sample(live: Live) -> Sample:
    """Read the counters, the cheap and changing ones first."""
    return Sample(
        cpu_seconds(live.pid),
        family_cpu_seconds(live.stage.cluster.pid),
        cpu_seconds(live.stage.model_pid),
        _foreign_cpu_seconds(),
        rss_kib(live.pid),
        live.stage.cluster.usage(live.database),
    )


def _foreign_cpu_seconds() -> float:
    return machine_cpu_seconds() - family_cpu_seconds(os.getpid())


def measure(
    live: Live, scenario: Scenario, on_open: Callable[[], object] = lambda: None
) -> Record:
    """Put one load on the subject and give its figures.

    ``on_open`` is called when the steady load begins.
    """
    moments = {"start": sample(live)}
    found: Record = {}
    for line in _load_lines(live, scenario):
        if line.startswith("{"):
            found = json.loads(line)
        else:
            moments.setdefault(line, sample(live))
            if line == "open":
                on_open()
    moments["end"] = sample(live)
    if not found:
        raise RuntimeError(f"the load on {live.subject.name} gave no findings")
    if scenario.hold_seconds is None:
        found["lost"] = _lost(live, found.pop("digests"))
    return {
        "subject": live.subject.name,
        "scenario": scenario.name,
        **found,
        **_figures(scenario, moments, found),
    }


def _load_lines(live: Live, scenario: Scenario) -> Iterator[str]:
    plan = Plan(
        port=live.port,
        secret=JWT_SECRET,
        tag=scenario.name,
        streams=scenario.streams,
        tokens=scenario.tokens,
        every_ms=scenario.every_ms,
        opens_per_second=scenario.opens_per_second,
        deadline_seconds=scenario.deadline_seconds,
        together=1 if scenario.apart or scenario.hold_seconds else scenario.streams,
        hold_seconds=scenario.hold_seconds,
    )
    with on_cores(OTHER_CORES):
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=live.stage.log,
        )
    assert child.stdin
    assert child.stdout
    watchdog = threading.Timer(plan.deadline_seconds + 60, child.kill)
    watchdog.start()
    try:
        child.stdin.write(plan_line(plan).encode())
        child.stdin.flush()
        for line in child.stdout:
            yield line.decode().strip()
    finally:
        watchdog.cancel()
        end(child)
        child.stdout.close()


def _lost(live: Live, seen: Sequence[str]) -> int | None:
    """How many texts that a reader saw whole are not in the database."""
    if live.subject.stored is None:
        return None
    rows = live.stage.cluster.query(live.database, live.subject.stored)
    stored = Counter(hashlib.sha256(text.encode()).hexdigest() for (text,) in rows)
    return (Counter(seen) - stored).total()


def _figures(scenario: Scenario, moments: dict[str, Sample], found: Record) -> Record:
    first, last = moments["start"], moments["end"]
    if scenario.hold_seconds is not None:
        held = moments.get("held")
        grown = held.rss_kib - first.rss_kib if held else 0
        return {"kib_per_stream": _ratio(grown, scenario.streams) or None}
    figures = {
        "cpu_us_all": _per(last.server_cpu - first.server_cpu, found["tokens"]),
        "wal_per_byte": _ratio(
            last.usage.wal_bytes - first.usage.wal_bytes, found["reply_bytes"]
        ),
    }
    if "open" in moments and "closing" in moments and found["window_tokens"]:
        figures |= _steady(moments["open"], moments["closing"], found)
    return figures


def _steady(start: Sample, stop: Sample, found: Record) -> Record:
    tokens, seconds = found["window_tokens"], found["window_seconds"]
    commits = stop.usage.commits - start.usage.commits
    return {
        "cpu_us": _per(stop.server_cpu - start.server_cpu, tokens),
        "postgres_us": _per(stop.postgres_cpu - start.postgres_cpu, tokens),
        "model_us": _per(stop.model_cpu - start.model_cpu, tokens),
        "commits_per_second": _ratio(commits, seconds),
        "tokens_per_second": _ratio(tokens, seconds),
        "foreign_cores": round((stop.foreign_cpu - start.foreign_cpu) / seconds, 2),
    }


def _per(seconds: float, tokens: int) -> float | None:
    return _ratio(seconds * 1e6, tokens)


def _ratio(value: float, by: float) -> float | None:
    return round(value / by, 1) if by else None


def run_rounds(
    stage: Stage,
    subjects: Sequence[Subject],
    scenarios: Sequence[Scenario],
    rounds: int,
) -> list[Record]:
    """Measure A B C, B C A, … for each scenario: what drifts meets all of them.

    The subjects of a round run side by side and are loaded in turns, since the
    machine's own speed drifts within minutes; where memory is measured, each alone.
    """
    records = []
    for number in range(rounds):
        shift = number % len(subjects)
        for record in _one_round(
            stage, [*subjects[shift:], *subjects[:shift]], scenarios
        ):
            records.append({"round": number, **record})
            _say(record)
    return records


def _wait_for_quiet(within_seconds: float = 15.0) -> None:
    """Let others finish what they do on this machine, but not for long."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        before = _foreign_cpu_seconds()
        time.sleep(1.0)
        if _foreign_cpu_seconds() - before < QUIET_CORES:
            return


def _one_round(
    stage: Stage, subjects: Sequence[Subject], scenarios: Sequence[Scenario]
) -> Iterator[Record]:
    if MEMORY in scenarios:
        for subject in subjects:
            with _warm(stage, [subject]) as (live,):
                yield measure(live, MEMORY)
    if not (rest := [scenario for scenario in scenarios if scenario is not MEMORY]):
        return
    with _warm(stage, subjects) as lives:
        for scenario in rest:
            for live in lives:
                if not scenario.only or live.subject.name in scenario.only:
                    yield measure(live, scenario)


@contextmanager
def _warm(stage: Stage, subjects: Sequence[Subject]) -> Iterator[list[Live]]:
    _wait_for_quiet()
    with ExitStack() as stack:
        lives = [stack.enter_context(started(stage, subject)) for subject in subjects]
        for live in lives:
            warm_up(live)
        yield lives


def warm_up(live: Live) -> None:
    """Let the subject open its pools; RuntimeError when it does not answer well."""
    found = measure(live, WARM_UP)
    if found["whole"] != WARM_UP.streams:
        raise RuntimeError(f"{live.subject.name}: {found['problems']}")


def _say(record: Record) -> None:
    shown = {
        key: record[key]
        for key in (
            "cpu_us",
            "delay",
            "kib_per_stream",
            "lost",
            "problems",
            "foreign_cores",
        )
        if record.get(key) is not None
    }
    print(record["subject"], record["scenario"], json.dumps(shown), flush=True)
