"""What is sent on WhatsApp, in the database; what failed for good, and its replay.

Each function is one statement. All raise `StoreUnavailableError` and
`TransientStoreError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from viva_server.ids import new_id
from viva_server.store.db import Database

SendState = Literal["waiting", "unknown", "sent", "dead", "dropped"]


class Send(NamedTuple):
    """A part that this owner is to send now, and nobody else."""

    id: str
    turn_id: str
    instance: str
    jid: str
    text: str
    attempts: int
    is_expired: bool
    is_paused: bool


class Dead(NamedTuple):
    """Something that waits for an operator; `state` unknown: it may have been sent."""

    id: str
    kind: Literal["turn", "send", "event"]
    instance: str
    jid: str | None
    state: Literal["dead", "unknown"]
    error: str | None
    since: datetime


async def claim_sends(database: Database, owner: str, *, sends: int) -> list[Send]:
    """Take the first unsent part of chats; each is committed as being sent."""
    rows = await database.fetch("claim_sends", owner=owner, sends=sends)
    return [Send._make(row) for row in rows]


async def finish_send(
    database: Database,
    owner: str,
    send: Send,
    *,
    state: SendState,
    outcome: str,
    error: str | None = None,
    message_id: str | None = None,
    due_seconds: float = 0.0,
) -> None:
    """Write what became of a request; nothing where an event has settled it before."""
    await database.fetch(
        "finish_send",
        owner=owner,
        outbox_id=send.id,
        state=state,
        outcome=outcome,
        error=error,
        message_id=message_id,
        due_seconds=due_seconds,
    )


async def load_sending(database: Database, owner: str) -> set[str]:
    """Give the ids of the parts that an owner sends."""
    rows = await database.fetch("load_sending", owner=owner)
    return {row.id for row in rows}


async def give_back_sends(database: Database, owner: str, ids: Sequence[str]) -> None:
    """Leave parts to others whose request was never made."""
    await database.execute("give_back_sends", owner=owner, outbox_ids=list(ids))


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
