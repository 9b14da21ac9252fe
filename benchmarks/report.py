"""The figures of all rounds as one table, side by side, with ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.subjects import SERVER, SUBJECTS

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: where its value stands in a record, dots leading inward."""

    title: str
    scenario: str
    path: str

    def values(self, records: Sequence[Record], subject: str) -> list[float]:
        """Its values of one subject, one per round."""
        found = [
            self._value(record)
            for record in records
            if record["subject"] == subject and record["scenario"] == self.scenario
        ]
        return [value for value in found if value is not None]

    def _value(self, record: Record) -> float | None:
        value: Any = record
        for key in self.path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else float(value)


METRICS = (
    Metric("server CPU per token, µs (200 × 25/s)", "cpu", "cpu_us"),
    Metric("the same with opening and closing", "cpu", "cpu_us_all"),
    Metric("PostgreSQL's CPU per token, µs", "cpu", "postgres_us"),
    Metric("first token's delay p50, ms (200 × 25/s)", "cpu", "first_token.p50"),
    Metric("last token sent to done seen p50, ms (all at once)", "cpu", "done.p50"),
    Metric("the same, 20 replies end in a second", "ends", "done.p50"),
    Metric("p99", "ends", "done.p99"),
    Metric("server CPU per token, µs (1000 × 10/s)", "delay", "cpu_us"),
    Metric("token's delay p50, ms (1000 × 10/s)", "delay", "delay.p50"),
    Metric("token's delay p99, ms", "delay", "delay.p99"),
    Metric("the same with opening and closing", "delay", "delay_all.p99"),
    Metric("first token's delay p50, ms", "delay", "first_token.p50"),
    Metric("last token sent to done seen p50, ms", "delay", "done.p50"),
    Metric("tokens/s (10000 offered)", "delay", "tokens_per_second"),
    Metric("memory per live stream, KiB (2000)", "memory", "kib_per_stream"),
    Metric("WAL bytes per byte of reply", "cpu", "wal_per_byte"),
    Metric("commits/s, 100 × 10/s", "commits_100", "commits_per_second"),
    Metric("commits/s, 400 × 10/s", "commits_400", "commits_per_second"),
    Metric("commits/s, 1000 × 10/s", "delay", "commits_per_second"),
    Metric("cores used by others meanwhile", "cpu", "foreign_cores"),
    Metric("replies seen but not stored (cpu)", "cpu", "lost"),
    Metric("replies seen but not stored (delay)", "delay", "lost"),
)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _cell(values: Sequence[float], base: float | None) -> str:
    if not values:
        return "–"
    middle = median(values)
    text = _number(middle)
    if len(values) > 1:
        text += f" ({_number(min(values))}–{_number(max(values))})"
    return f"{text} ×{middle / base:.1f}" if base else text


def table(records: Sequence[Record]) -> str:
    """Median (minimum–maximum) over the rounds, and the ratio to the server."""
    names = [name for name in SUBJECTS if any(r["subject"] == name for r in records)]
    lines = [
        "| | " + " | ".join(SUBJECTS[name].title for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for metric in METRICS:
        found = {name: metric.values(records, name) for name in names}
        if any(found.values()):
            lines.append(f"| {metric.title} | {' | '.join(_row(found))} |")
    return "\n".join(lines)


def _row(found: dict[str, list[float]]) -> list[str]:
    ours = found.get(SERVER.name)
    base = median(ours) if ours else None
    return [
        _cell(values, None if name == SERVER.name or not base else base)
        for name, values in found.items()
    ]
