"""When a standstill is a death, on a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from viva_server.chat.failure_detector import FailureDetector, Limits
from viva_server.store.processes import Seen, Verdict

_STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class Looker:
    """A process that beats and looks as the real one does, at one other."""

    def __init__(self) -> None:
        self.detector = FailureDetector()
        self.now = 1000.0
        self.value, self.is_locked = "1", True
        self.backend, self.started_at = 7, _STARTED
        self.beats = True
        self._beat_at = 0.0
        self.detector.connected()

    def look(self) -> None:
        seen = Seen("b", self.value, self.is_locked, self.backend, self.started_at)
        self.detector.looked(self.now, self.now, "a", [seen])

    def live(self, seconds: float) -> list[str]:
        """Beat and look for so long; give the kinds of verdict at the end."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            if self.beats and self.now - self._beat_at > 0.49:
                self._beat_at = self.now
                self.detector.beaten(self.now)
            self.look()
        return [v.kind for v in self.detector.verdicts(self.now)]


def test_the_limits_are_those_of_the_contract() -> None:
    limits = Limits()
    assert (limits.slow_beats, limits.fast_seconds, limits.gap_seconds) == (
        30,
        1.5,
        0.5,
    )
    assert (limits.start_seconds, limits.settle_seconds) == (5.0, 15.0)
    assert limits.break_seconds == 5.0


def test_who_stands_still_without_its_lock_for_1_5_s_is_dead() -> None:
    looker = Looker()
    looker.live(10)
    looker.value, looker.is_locked = "2", False
    assert looker.live(1.5) == []
    assert looker.live(0.2) == ["fast"]
    assert looker.detector.verdicts(looker.now) == [Verdict("b", "fast", "2")]
    looker.value = "3"
    assert looker.live(0.1) == []


def test_who_holds_its_lock_is_dead_after_30_own_heartbeats() -> None:
    looker = Looker()
    looker.live(1)
    looker.value = "2"
    assert looker.live(14.8) == []
    assert looker.live(0.8) == ["slow"]


def test_a_lock_that_is_held_at_one_look_begins_the_count_anew() -> None:
    looker = Looker()
    looker.live(10)
    looker.is_locked = False
    looker.live(1.4)
    looker.is_locked = True
    looker.live(0.1)
    looker.is_locked = False
    assert looker.live(1.4) == []


@pytest.mark.parametrize(("gap_seconds", "kinds"), [(0.4, ["fast"]), (0.6, [])])
def test_looks_that_are_far_apart_do_not_belong_together(
    gap_seconds: float, kinds: list[str]
) -> None:
    looker = Looker()
    looker.live(10)
    looker.is_locked = False
    looker.live(1.2)
    looker.now += gap_seconds - 0.1
    assert looker.live(0.2) == kinds


def test_nobody_is_dead_by_a_look_that_is_old() -> None:
    looker = Looker()
    looker.live(10)
    looker.is_locked = False
    assert looker.live(2) == ["fast"]
    assert looker.detector.verdicts(looker.now + 0.6) == []


def test_who_has_just_started_judges_after_5_s() -> None:
    looker = Looker()
    looker.is_locked = False
    assert looker.live(4.9) == []
    assert looker.live(0.3) == ["fast"]


@pytest.mark.parametrize("what", ["connection", "server", "heartbeat"])
def test_after_a_break_nobody_judges_fast_for_15_s(what: str) -> None:
    looker = Looker()
    looker.live(20)
    match what:
        case "connection":
            looker.detector.connected()
            looker.backend += 1
        case "server":
            looker.started_at += timedelta(seconds=1)
        case "heartbeat":
            looker.beats = False
            looker.live(5.2)
            looker.beats = True
    looker.live(0.1)
    looker.value, looker.is_locked = "2", False
    assert looker.live(14.7) == []
    assert looker.live(0.5) in (["fast"], ["slow"])


def test_own_breaks_do_not_count_for_the_slow_verdict() -> None:
    looker = Looker()
    looker.live(1)
    looker.value = "2"
    looker.live(10)
    looker.beats = False
    assert looker.live(60) == []
    looker.beats = True
    assert looker.live(4) == []
    assert looker.live(2) == ["slow"]


def test_behind_a_pooler_only_the_slow_verdict_is_left() -> None:
    looker = Looker()
    looker.live(10)
    looker.backend += 1
    looker.live(0.1)
    assert looker.detector.is_pooled
    looker.value, looker.is_locked = "2", False
    assert looker.live(14) == []
    assert looker.live(2) == ["slow"]
    looker.detector.connected()
    assert not looker.detector.is_pooled


def test_who_has_no_lock_is_judged_slow_only() -> None:
    looker = Looker()
    looker.live(10)
    looker.value, looker.is_locked = "2", None  # type: ignore[assignment]
    assert looker.live(14) == []
    assert looker.live(2) == ["slow"]


def test_silence_is_counted_from_the_first_look_at_the_heartbeat() -> None:
    looker = Looker()
    looker.live(1)
    looker.value = "2"
    looker.live(1.6)
    assert looker.detector.silent_seconds("b") == pytest.approx(1.5)
    assert looker.detector.silent_seconds("nobody") == 0.0
