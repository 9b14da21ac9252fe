"""The time of sending, written into each token, so that a reader knows its age.

CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from __future__ import annotations

from time import monotonic

UNITS_PER_SECOND = 100_000
WRAP = 1 << 24  # 167 s, longer than any run
TOKEN_CHARS = 7  # six hexadecimal digits and a space


def stamp(at: float) -> str:
    """The token that a model sends at that monotonic time (seconds)."""
    return f"{int(at * UNITS_PER_SECOND) % WRAP:06x} "


def age_seconds(token: str, seen_at: float) -> float:
    """How old the token was when it was seen at that monotonic time.

    Raises ValueError when it is not a token. A time just before the token's own
    gives a small negative age, not a wrapped one.
    """
    if len(token) != TOKEN_CHARS or token[-1] != " ":
        raise ValueError(f"not a token: {token!r}")
    age = (int(seen_at * UNITS_PER_SECOND) - int(token, 16)) % WRAP
    if age > WRAP * 7 // 8:
        age -= WRAP
    return age / UNITS_PER_SECOND


__all__ = ["TOKEN_CHARS", "age_seconds", "monotonic", "stamp"]
