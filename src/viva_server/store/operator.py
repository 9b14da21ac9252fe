"""What an operator looks at: processes, live replies, work, messages, the dead.

All of it is read from the database, so that any process shows all of them; nothing is
written but by `replay_all`. Each look costs the same however much is stored. All raise
`StoreUnavailableError` and `TransientStoreError`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from viva_server.store.driver.database import Database, Row
from viva_server.values import new_id

COUNTED_UP_TO = 1000
"""What is more is told as this many: nobody waits for the count of a backlog."""

PROCESSES = 200
REPLIES = 20
MESSAGES = 20
DEAD_ON_A_PAGE = 25
_INSTANCES = 200

ReplayOutcome = Literal["replayed", "not_dead", "chat_busy"]

MINUTES = 30
COUNTED_IN_A_MINUTE = 2000
"""Of a minute only so many are read: a flood must not make looking at it dear."""

_KEPT_SECONDS = 60.0
_EVENTS = 12
_OTHER = "other"


class Dead(NamedTuple):
    """Something that waits for an operator; `state` unknown: it may have been sent."""

    id: str
    kind: Literal["turn", "send", "event"]
    instance: str
    jid: str | None
    state: Literal["dead", "unknown"]
    error: str | None
    since: datetime


class Place(NamedTuple):
    """Where a page of the dead ends: the next one has what is older."""

    before_at: str = "infinity"
    before_id: str = "ffffffff-ffff-ffff-ffff-ffffffffffff"


async def show_newest_messages(database: Database) -> list[Row]:
    """Show how far the newest messages of people on WhatsApp have come."""
    keys = await database.fetch("find_newest_messages", rows=MESSAGES)
    return await _show_messages(database, keys)


async def show_messages_of(database: Database, jids: Sequence[str]) -> list[Row]:
    """Show the newest messages of these addresses, at whatever instance."""
    instances = await database.fetch("find_instances", most=_INSTANCES)
    keys = await database.fetch(
        "find_messages_of_phone",
        instances=[row.instance for row in instances],
        jids=list(jids),
        rows=MESSAGES,
    )
    return await _show_messages(database, keys)


async def _show_messages(database: Database, keys: Sequence[Row]) -> list[Row]:
    return await database.fetch(
        "show_messages",
        instances=[key.instance for key in keys],
        message_ids=[key.message_id for key in keys],
    )


async def show_dead(database: Database, place: Place) -> tuple[list[Row], Place | None]:
    """Show a page of what is dead, the newest first, and where the next one begins."""
    rows = await database.fetch(
        "show_dead",
        rows=DEAD_ON_A_PAGE + 1,
        before_at=place.before_at,
        before_id=place.before_id,
    )
    page = rows[:DEAD_ON_A_PAGE]
    if len(rows) == len(page):
        return page, None
    return page, Place(page[-1].since.isoformat(), page[-1].id)


async def replay(database: Database, dead_id: str) -> bool:
    """Do again what `list_dead` names; False if there is none such.

    A part of unknown outcome may arrive twice then. A dead turn waits until its chat
    has no other running: False too.
    """
    if await database.fetch_one("replay_send", outbox_id=dead_id):
        return True
    turns = await database.execute(
        "replay_turn", turn_id=dead_id, user_message_id=new_id()
    )
    return bool(turns or await database.execute("replay_event", inbox_id=dead_id))


async def replay_all(
    database: Database, ids: Sequence[str]
) -> list[tuple[str, ReplayOutcome]]:
    """Do each of these again, as `replay`; a failure in the midst leaves the rest."""
    return [(each, await _replay(database, each)) for each in ids]


async def _replay(database: Database, dead_id: str) -> ReplayOutcome:
    if await replay(database, dead_id):
        return "replayed"
    busy = await database.fetch_one("find_dead_turn", turn_id=dead_id)
    return "not_dead" if busy is None else "chat_busy"


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
