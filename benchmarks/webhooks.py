"""Acknowledged webhooks per second, each stored before its 200.

All subjects run from the first to the last round, and take turns of two seconds: the
machine's own speed drifts by a factor of two within minutes, so that figures of
different minutes cannot be compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.processes import OTHER_CORES, cpu_seconds, end, on_cores
from benchmarks.run import Live, Stage, started
from benchmarks.subjects import SERVER, WEBHOOK_PEER, Subject

CONNECTIONS = 64
SECONDS = 2.0
ROUNDS = 14
Record = dict[str, Any]


def run_rounds(stage: Stage, subjects: Sequence[Subject], rounds: int) -> list[Record]:
    """Measure A B, B A, …"""
    records = []
    with ExitStack() as stack:
        lives = [stack.enter_context(started(stage, subject)) for subject in subjects]
        for live in lives:
            _load(live.port, "warm", 1.0)
        for number in range(rounds):
            for live in lives if number % 2 == 0 else lives[::-1]:
                record = {"round": number, **_measure(live)}
                records.append(record)
                print(json.dumps(record), flush=True)
    return records


def _measure(live: Live) -> Record:
    before = cpu_seconds(live.pid)
    found = _load(live.port, "run", SECONDS)
    used = cpu_seconds(live.pid) - before
    acknowledged = found["acknowledged"] or 1
    return {
        "subject": live.subject.name,
        "cpu_us": round(used * 1e6 / acknowledged, 1),
        **found,
    }


def _load(port: int, tag: str, seconds: float) -> Record:
    command = [sys.executable, "-m", "benchmarks.webhook_load"]
    command += [str(port), f"{tag}{time.monotonic_ns():x}", str(CONNECTIONS)]
    with on_cores(OTHER_CORES):
        child = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE)
    try:
        output, _ = child.communicate(timeout=seconds + 30)
    finally:
        end(child)
    found: Record = json.loads(output)
    return found


def table(records: Sequence[Record]) -> str:
    """Median (minimum–maximum) of each figure over the rounds."""
    keys = ("per_second", "p50_ms", "p99_ms", "cpu_us", "failed")
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for subject in (SERVER, WEBHOOK_PEER):
        mine = [record for record in records if record["subject"] == subject.name]
        if mine:
            cells = [_cell([record[key] for record in mine]) for key in keys]
            lines.append(f"| {subject.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{median(values):g} ({min(values):g}–{max(values):g})"
