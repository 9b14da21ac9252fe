"""What the chat counts of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from viva_server.tallies import ROWS, Buckets
from viva_server.words import FinishReason

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
