"""What a fault sets in the health is undone without a request."""

from __future__ import annotations

import pytest

from viva_server.errors import PoolFullError, StoreUnavailableError
from viva_server.store import health as module
from viva_server.store.health import Health


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def _is_well(health: Health) -> bool:
    return health.is_well


def test_a_failure_counts_after_a_second_and_until_something_is_stored(
    clock: Clock,
) -> None:
    health = Health()
    health.failed(clock.now, StoreUnavailableError())
    clock.now += 0.9
    assert _is_well(health)
    assert health.nudge.is_set()
    clock.now += 0.2
    assert not _is_well(health)
    health.stored()
    assert _is_well(health)
    clock.now += 5.0
    assert _is_well(health)


def test_what_hangs_counts_while_it_hangs(clock: Clock) -> None:
    health = Health()
    with health.attempt():
        assert _is_well(health)
        clock.now += 1.5
        assert not _is_well(health)
    assert _is_well(health)


def test_a_full_pool_says_nothing_of_the_database(clock: Clock) -> None:
    health = Health()
    health.failed(clock.now, PoolFullError())
    clock.now += 1.5
    assert _is_well(health)


def test_clocks_agree_again(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()
    agreed = []
    for offset_seconds in (61.0, 3600.0, -59.0, -61.0):
        health.compare_clocks(offset_seconds)
        agreed.append(health.clocks_agree)
    assert agreed == [False, False, True, False]
    assert [each.levelname for each in caplog.records] == ["ERROR", "WARNING", "ERROR"]
