"""What an operator looks at: processes, live replies, work, messages, the dead.

All of it is read from the database, so that any process shows all of them; nothing is
written but by `replay_all`. Each look costs the same however much is stored. All raise
`StoreUnavailableError` and `TransientStoreError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from viva_server.ids import new_id
from viva_server.store.driver.database import Database, Row

COUNTED_UP_TO = 1000
"""What is more is told as this many: nobody waits for the count of a backlog."""

PROCESSES = 200
REPLIES = 20
MESSAGES = 20
DEAD_ON_A_PAGE = 25
_INSTANCES = 200

ReplayOutcome = Literal["replayed", "not_dead", "chat_busy"]


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


async def show_processes(database: Database) -> list[Row]:
    """Show the processes that have not left in order, the newest first."""
    return await database.fetch("show_processes", rows=PROCESSES)


async def show_replies(database: Database) -> list[Row]:
    """Show the live replies that have run longest."""
    return await database.fetch("show_replies", rows=REPLIES)


async def count_work(database: Database) -> Row:
    """Count what waits, runs and is dead, and tell the database's time."""
    row = await database.fetch_one("count_work", most=COUNTED_UP_TO)
    assert row is not None, "a SELECT without FROM gives one row"
    return row


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


async def list_dead(database: Database, *, rows: int) -> list[Dead]:
    """List what could not be answered, sent or applied, oldest first."""
    found = await database.fetch("list_dead", rows=rows)
    return [Dead._make(row) for row in found]


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
