"""What happened in a run, as clients, model and database tell it.

The format follows Jepsen's: `invoke`, then `ok` (the client holds proof of success),
`fail` (proof that there was no effect) or `info` (it may or may not have happened);
`ev` is something seen on the way. One clock, `time.monotonic` of the driver.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

Kind = Literal["invoke", "ok", "fail", "info", "ev"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history; `index` orders all of them."""

    index: int
    at: float
    by: str
    kind: Kind
    what: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message in the database, or in a snapshot."""

    person: str
    session_id: str
    seq: int
    id: str
    role: str
    text: str
    status: str
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """One request that the model got; times as in the history."""

    question: str
    text: str
    began: float
    ended: float
    is_whole: bool = True
    """Whether the model came to the end of what it wanted to say."""


@dataclass(slots=True)
class History:
    """Events of a run in their order, and what was there after quiescence."""

    events: list[Event] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    runs: list[ModelRun] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    """The process (its row's id) that each reply belonged to, where it was noted."""

    def add(self, by: str, kind: Kind, what: str, **facts: Any) -> Event:
        """Note an event, now."""
        event = Event(len(self.events), time.monotonic(), by, kind, what, facts)
        self.events.append(event)
        return event

    def of(self, *whats: str) -> Iterable[Event]:
        """Give the events of some sorts in their order."""
        return (event for event in self.events if event.what in whats)

    def write(self, file: Path) -> None:
        """Write the events as JSON lines, for a look by hand."""
        with file.open("w", encoding="utf-8") as lines:
            for e in self.events:
                line = {"i": e.index, "t": round(e.at, 4), "proc": e.by, "type": e.kind}
                json.dump(line | {"f": e.what} | e.facts, lines, ensure_ascii=False)
                lines.write("\n")


def figures_of(history: History) -> dict[str, int]:
    """Count what happened, and what of it was lost."""
    seen = Counter(event.what for event in history.events if event.kind == "ev")
    return {
        "asked": sum(1 for e in history.of("chat") if e.kind == "invoke"),
        "accepted": seen["accepted"],
        "done": seen["done"],
        "errors": seen["error"],
        "chars_seen": sum(len(e.facts["text"]) for e in history.of("content")),
        "chars_lost": _lost_characters(history),
        "snapshots": sum(1 for e in history.of("snapshot") if e.kind == "ok"),
        "replies_stored": sum(1 for m in history.stored if m.role == "assistant"),
        "model_runs": len(history.runs),
    }


def _lost_characters(history: History) -> int:
    """Count the characters that a client saw and the database does not have there."""
    texts = {message.id: message.text for message in history.stored}
    lost = 0
    for event in history.of("content"):
        shown, end = event.facts["text"], event.facts["offset"]
        kept = texts.get(event.facts["message"], "")[end - len(shown) : end]
        same = takewhile(
            lambda pair: pair[0] == pair[1], zip(shown, kept, strict=False)
        )
        lost += len(shown) - sum(1 for _ in same)
    return lost
