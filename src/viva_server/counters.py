"""What this process counts; `api.operations` tells Prometheus when asked."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from viva_server.values import FinishReason

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""From a fast commit to the longest wait for a model."""

_LAG_SAMPLE_SECONDS = 0.25

ROWS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


class Buckets:
    """How often values fell into ranges; a value on a bound belongs below it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        # One more, for what is above the last bound.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class LoopLag:
    """Samples by how much the running loop wakes a task too late."""

    def __init__(self) -> None:
        self.seconds = Buckets()

    async def run(self) -> None:
        """Sample until this is cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + _LAG_SAMPLE_SECONDS
            await asyncio.sleep(_LAG_SAMPLE_SECONDS)
            self.seconds.observe(max(0.0, time() - due))


WebhookOutcome = Literal[
    "stored",
    "duplicate",
    "kept",
    "ignored",
    "refused",
    "unauthorized",
    "unavailable",
]
"""`kept`: in memory until it is stored; `ignored`: too large; `refused`: no JSON."""

TurnOutcome = Literal["answered", "fixed_text", "skipped", "again", "dead"]
"""How one run of a turn ended.

`fixed_text`: a fixed answer instead of the model's; `skipped`: nobody is answered
(handover, limit, too old); `again`: it will run again; `dead`: it was the last run.
"""

SendKind = Literal["sent", "retry", "unknown", "dead"]
"""How one attempt to send ended."""


@dataclass(slots=True)
class WhatsAppCounters:
    """Of one process: webhooks that were answered, by the label of their event; ends of
    runs and of attempts.
    """

    webhooks: Counter[tuple[str, WebhookOutcome]] = field(default_factory=Counter)
    turns: Counter[TurnOutcome] = field(default_factory=Counter)
    sends: Counter[SendKind] = field(default_factory=Counter)


TOKEN_KINDS: Final = ("prompt", "completion")
_MOST_TOKENS: Final = 10**9


@dataclass(slots=True)
class ReplyCounters:
    """Of the replies of one process.

    `first_text_seconds` is from the stored question to the first text that a reader
    can see; replies without text are not in it. `tokens` are the model's own count, by
    kind.
    """

    ended: Counter[FinishReason] = field(default_factory=Counter)
    first_text_seconds: Buckets = field(default_factory=Buckets)
    resumes: int = 0
    tokens: Counter[str] = field(default_factory=Counter)

    def count_usage(self, usage: Mapping[str, Any] | None) -> None:
        """Count what the model says that a reply took; what is no number is none."""
        for kind in TOKEN_KINDS:
            count = (usage or {}).get(f"{kind}_tokens")
            if isinstance(count, int) and 0 < count < _MOST_TOKENS:
                self.tokens[kind] += count


@dataclass(slots=True)
class JournalCounters:
    """Of the commits of one journal.

    `lag_seconds` is how long the oldest text of a batch has waited when it is
    committed; `commit_seconds` has the repeats of a commit that failed in it.
    """

    batch_rows: Buckets = field(default_factory=lambda: Buckets(ROWS))
    commit_seconds: Buckets = field(default_factory=Buckets)
    lag_seconds: Buckets = field(default_factory=Buckets)
    fenced_writes: int = 0


@dataclass(slots=True)
class LogCounters:
    """Of the log of this process: lines that nobody read in time."""

    dropped_lines: int = 0


LOG: Final = LogCounters()
"""Of the process, as its log is."""
