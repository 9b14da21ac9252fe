"""How long to wait before a model is asked again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RETRY_AFTER_SECONDS: Final = 10.0
_BACKOFF_SECONDS: Final = (0.25, 1.0)


def backoff_seconds() -> Iterator[float]:
    """Yield the least wait before each retry, spread so that many do not march."""
    for seconds in _BACKOFF_SECONDS:
        yield seconds * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


def wait_seconds(headers: Mapping[str, str]) -> float:
    """Read how long a server asks to wait, in OpenAI's field or the standard's.

    `headers` are read without regard to case by who gives them.
    """
    try:
        milliseconds = float(headers.get("retry-after-ms", ""))
    except ValueError:
        return retry_after_seconds(headers.get("Retry-After"))
    return retry_after_seconds(str(milliseconds / 1000))


def retry_after_seconds(
    value: str | None,
    now: datetime | None = None,
    *,
    at_most: float = MAX_RETRY_AFTER_SECONDS,
) -> float:
    """Read a Retry-After header (RFC 9110 § 10.2.3: seconds or an HTTP date).

    Always between 0 and `at_most`: a negative or unreadable one is 0.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now or datetime.now(UTC))
    # "nan" is above nothing.
    return min(seconds, at_most) if seconds > 0 else 0.0


def _seconds_until(value: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:  # "-0000": UTC of unknown place
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()
