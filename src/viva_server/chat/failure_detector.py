"""Who is dead, judged from heartbeats that change. No I/O and no clock of its own.

A heartbeat is compared for being another, never with a clock, so no clock that jumps
and no cut that meets everybody makes anybody dead. All orders in which this can be
asked are walked by `tests/unit/chat/test_ownership_model.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from viva_server.store.processes import Seen, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a standstill is a death."""

    slow_beats: int = 30
    """Own heartbeats during which the other's stood still: 15 s, breaks not counted."""
    fast_seconds: float = 1.5
    """How long the other's stood still and its lock was free, at all looks."""
    gap_seconds: float = 0.5
    """Looks further apart than this do not belong together."""
    start_seconds: float = 5.0
    """How long one beats before it judges fast, from its start on …"""
    settle_seconds: float = 15.0
    """… and from a break on: what cut it off may have cut off the others too."""
    break_seconds: float = 5.0
    """Own heartbeats further apart than this are a break."""


LIMITS = Limits()


@dataclass(slots=True)
class _Standstill:
    """Since when a process shows one heartbeat; times are those of the looks."""

    value: str
    since: float
    own_beats: int
    free_since: float | None = None


class FailureDetector:
    """What one process knows of the others, by its own looks and heartbeats.

    All times are of one monotonic clock, which the caller reads.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or LIMITS
        self._standstills: dict[str, _Standstill] = {}
        self._asked_at = float("-inf")
        self._beats = 0
        self._beat_at: float | None = None
        # Since when it beats without a break, and how long it has to.
        self._steady_since: float | None = None
        self._steady_for = self._limits.start_seconds
        self._backend: int | None = None
        self._server_started_at: datetime | None = None
        self.is_pooled = False
        """A pooler changes the session behind the connection: locks say nothing."""

    def connected(self) -> None:
        """Take note of a connection; any but the first is a break."""
        if self._beat_at is not None:
            self._broke()
        self._backend = None
        self.is_pooled = False

    def beaten(self, now: float) -> None:
        """Take note that an own heartbeat has been answered."""
        if self._beat_at is not None and self._is_break(now):
            self._broke()
        if self._steady_since is None:
            self._steady_since = now
        self._beats += 1
        self._beat_at = now

    def looked(
        self, asked_at: float, now: float, me: str, seen: Iterable[Seen]
    ) -> None:
        """Take a look at all, oneself among them: asked at `asked_at`, answered now."""
        belongs = now - self._asked_at <= self._limits.gap_seconds
        self._asked_at = asked_at
        known, self._standstills = self._standstills, {}
        for each in seen:
            self._note_connection(each.backend, each.server_started_at)
            if each.id == me:
                continue
            standstill = known.get(each.id)
            if standstill is None or standstill.value != each.value:
                standstill = _Standstill(each.value, now, self._beats)
            if each.is_locked is not False:
                standstill.free_since = None
            elif standstill.free_since is None or not belongs:
                standstill.free_since = now
            self._standstills[each.id] = standstill

    def verdicts(self, now: float) -> list[Verdict]:
        """Give who is dead, by looks of which the last is not older than a gap."""
        if now - self._asked_at > self._limits.gap_seconds:
            return []
        judges_fast = self._judges_fast(now)
        found = []
        for process_id, standstill in self._standstills.items():
            if self._beats - standstill.own_beats >= self._limits.slow_beats:
                found.append(Verdict(process_id, "slow", standstill.value))
            elif judges_fast and self._was_free(standstill):
                found.append(Verdict(process_id, "fast", standstill.value))
        return found

    def silent_seconds(self, process_id: str) -> float:
        """Give for how long a process has stood still, as far as it was looked at."""
        standstill = self._standstills.get(process_id)
        return 0.0 if standstill is None else self._asked_at - standstill.since

    def _was_free(self, standstill: _Standstill) -> bool:
        since = standstill.free_since
        return since is not None and self._asked_at - since >= self._limits.fast_seconds

    def _judges_fast(self, now: float) -> bool:
        return (
            not self.is_pooled
            and self._steady_since is not None
            and now - self._steady_since >= self._steady_for
            and not self._is_break(now)
        )

    def _is_break(self, now: float) -> bool:
        assert self._beat_at is not None, "it has beaten"
        return now - self._beat_at > self._limits.break_seconds

    def _broke(self) -> None:
        self._steady_since = None
        self._steady_for = self._limits.settle_seconds

    def _note_connection(self, backend: int, server_started_at: datetime) -> None:
        if self._backend not in {None, backend}:
            self.is_pooled = True
        if self._server_started_at not in {None, server_started_at}:
            self._broke()
        self._backend, self._server_started_at = backend, server_started_at
