"""Waiting for something to become true, with a generous deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(is_true: Callable[[], object], within_seconds: float = 60.0) -> None:
    """Return when the condition holds; it is asked every 10 ms.

    Raises:
        AssertionError: it does not hold in time.
    """
    for _ in range(int(within_seconds * 100)):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become true in time")
