"""How long a model's server can make us wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from viva_server.responders.retry import backoff_seconds, retry_after_seconds

NOW = datetime(2026, 10, 2, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("0", 0),
        ("3", 3),
        ("2.5", 2.5),
        ("-5", 0),
        ("10", 10),
        ("11", 10),
        ("1e9", 10),
        ("9" * 5000, 10),
        ("inf", 10),
        ("-inf", 0),
        ("nan", 0),
        ("", 0),
        ("soon", 0),
        ("Fri, 02 Oct 2026 12:00:04 GMT", 4),
        ("Fri, 02 Oct 2026 12:00:04 -0000", 4),
        ("Fri, 02 Oct 2026 11:00:00 GMT", 0),
        ("Fri, 02 Oct 2099 12:00:00 GMT", 10),
        ("Fri, 99 Oct 2026 12:00:00 GMT", 0),
        ("Fri, 02 Oct 99999 12:00:00 GMT", 0),
    ],
)
def test_retry_after_is_always_between_0_and_10_seconds(
    value: str | None, seconds: float
) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_there_are_two_retries_at_most_with_growing_waits() -> None:
    for _ in range(100):
        first, second = backoff_seconds()
        assert 0 < first < second < 2
