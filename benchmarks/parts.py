"""Where the server's CPU per token goes, by sampling it with py-spy."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.processes import running
from benchmarks.run import Live, Stage, measure, started, warm_up
from benchmarks.scenarios import CPU
from benchmarks.subjects import Subject, choose

Record = dict[str, Any]
SAMPLES_PER_SECOND = 100
LOOP = "event loop and sockets"
# The innermost frame that is listed here names the part of a sample.
PARTS = (
    ("journal", ("viva_server/store/", "chat/journal.py", "aiopg/", "psycopg2/")),
    (
        "reading the model",
        ("viva_server/responders/", "aiohttp/client"),
    ),
    ("reading the model", ("aiohttp/streams.py", "aiohttp/base_protocol.py")),
    ("writing", ("viva_server/api/", "aiohttp/http_writer.py", "aiohttp/web_")),
    ("writing", ("viva_server/sse.py",)),
    ("replies and readers", ("viva_server/chat/",)),
)


def run_rounds(stage: Stage, server: str | None, rounds: int) -> list[Record]:
    """Sample the server under the load of 200 streams, once per round."""
    (subject,) = choose(["viva"], server)
    return [{"round": number, **_sampled(stage, subject)} for number in range(rounds)]


def _sampled(stage: Stage, subject: Subject) -> Record:
    with (
        started(stage, subject) as live,
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as samplers,
    ):
        stacks = Path(folder) / "stacks"
        command = _py_spy(live, stacks)
        warm_up(live)
        record = measure(
            live,
            CPU,
            on_open=lambda: samplers.enter_context(running(command, stage.log)),
        )
        samplers.close()
        shares = _shares(stacks.read_text().splitlines())
    return {"subject": subject.name, "cpu_us": record["cpu_us"], "shares": shares}


def _py_spy(live: Live, stacks: Path) -> list[str]:
    # It ends by itself before the streams do, and has written its file then.
    seconds = CPU.tokens * CPU.every_ms // 1000 - 2
    options = f"--rate {SAMPLES_PER_SECOND} --format raw --duration {seconds}"
    program = str(Path(sys.executable).with_name("py-spy"))
    return [
        *(program, "record", "--pid", str(live.pid), "--output", str(stacks)),
        *options.split(),
    ]


def _shares(lines: Iterable[str]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        found[_part(stack.split(";"))] += int(count)
    return {part: round(n / found.total(), 3) for part, n in found.most_common()}


def _part(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        for part, marks in PARTS:
            if any(mark in frame for mark in marks):
                return part
    return LOOP


def table(records: Sequence[Record]) -> str:
    """Each part's share and its µs per token, one column per round."""
    lines = ["| part |" + " µs per token |" * len(records)]
    lines.append("|---" * (len(records) + 1) + "|")
    for part in dict.fromkeys(part for record in records for part in record["shares"]):
        cells = [_cell(record, record["shares"].get(part, 0.0)) for record in records]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(record: Record, share: float) -> str:
    return f"{share * record['cpu_us']:.1f} ({share:.0%})"
