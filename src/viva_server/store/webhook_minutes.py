"""How many webhooks came in which minute, by event, counted from the inbox."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from viva_server.store.driver.database import Database

MINUTES = 30
COUNTED_IN_A_MINUTE = 2000
"""Of a minute only so many are read: a flood must not make looking at it dear."""

_KEPT_SECONDS = 60.0
_EVENTS = 12
_OTHER = "other"


class EventRate(NamedTuple):
    """An event, and how many came in each minute, the oldest first."""

    event: str
    counts: list[int]


class WebhookRates(NamedTuple):
    """The last `MINUTES`, up to the present one; the event that came most is first.

    `is_capped`: in some minute more came than were counted.
    """

    first_minute: int
    events: list[EventRate]
    is_capped: bool


class WebhookMinutes:
    """Counts the last minutes; those that have passed are counted once a minute.

    So an operator's look every few seconds reads the rows of two minutes, and a row
    that came late, from the memory of a process that had no database, is seen too.
    """

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[int, tuple[float, Counter[str]]] = {}
        self._lock = asyncio.Lock()

    async def read(self, now_minute: int) -> WebhookRates:
        """Count up to this minute (since 1970, by the database's clock).

        Raises:
            StoreUnavailableError, TransientStoreError: as every query.
        """
        minutes = range(now_minute - MINUTES + 1, now_minute + 1)
        # One at a time: who comes second finds the minutes counted.
        async with self._lock:
            await self._count([m for m in minutes if not self._is_fresh(m, now_minute)])
            self._known = {m: self._known[m] for m in minutes}
            return _rates(minutes[0], [self._known[m][1] for m in minutes])

    def _is_fresh(self, minute: int, now_minute: int) -> bool:
        if minute not in self._known or minute >= now_minute - 1:
            return False
        return self._clock() - self._known[minute][0] < _KEPT_SECONDS

    async def _count(self, minutes: list[int]) -> None:
        rows = await self._database.fetch(
            "count_webhooks", minutes=minutes, most=COUNTED_IN_A_MINUTE
        )
        counted: dict[int, Counter[str]] = {minute: Counter() for minute in minutes}
        for row in rows:
            counted[row.minute][row.event] += row.webhooks
        at = self._clock()
        self._known |= {minute: (at, counts) for minute, counts in counted.items()}


def _rates(first_minute: int, counts: list[Counter[str]]) -> WebhookRates:
    """Bring the counts of each minute into one row for each event."""
    total: Counter[str] = sum(counts, Counter())
    named = [event for event, _ in total.most_common(_EVENTS)]
    events = [EventRate(event, [each[event] for each in counts]) for event in named]
    # Anybody may post an event of a new name where no secret is set.
    if len(total) > len(named):
        rest = [each.total() - sum(each[event] for event in named) for each in counts]
        events.append(EventRate(_OTHER, rest))
    is_capped = any(each.total() >= COUNTED_IN_A_MINUTE for each in counts)
    return WebhookRates(first_minute, events, is_capped)
