"""Sessions and messages in the database, as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from viva_server.store.driver.database import Database
from viva_server.store.people import Person
from viva_server.values import Channel, FinishReason, Status


class Session(NamedTuple):
    """A session's id and mode."""

    id: str
    mode: str | None


class Message(NamedTuple):
    """A message; a live reply has the text that is committed so far."""

    id: str
    seq: int
    role: str
    content: str
    mode: str | None
    attachments: list[Any]
    meta: dict[str, Any]
    status: Status
    finish_reason: FinishReason | None
    created_at: datetime


class SessionItem(NamedTuple):
    """A line of the list of sessions."""

    id: str
    mode: str | None
    title: str | None
    channel: Channel
    message_count: int
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None


async def find_session(
    database: Database, person: Person, session_id: str | None
) -> Session | None:
    """Find a person's session by id, or the newest one where no id is given."""
    if session_id is None:
        return await database.fetch_one(
            "find_newest_session", Session, channel=person.channel, person=person.id
        )
    return await database.fetch_one(
        "find_session",
        Session,
        session_id=session_id,
        channel=person.channel,
        person=person.id,
    )


async def list_sessions(
    database: Database, person: Person, *, page: int, page_size: int
) -> tuple[list[SessionItem], int]:
    """Load one page of a person's sessions, newest first, and how many there are."""
    items = await database.fetch(
        "list_sessions",
        SessionItem,
        channel=person.channel,
        person=person.id,
        page_size=page_size,
        skipped=(page - 1) * page_size,
    )
    [count] = await database.fetch(
        "count_sessions", channel=person.channel, person=person.id
    )
    return items, count.total


async def delete_quiet_session(
    database: Database, person: Person, session_id: str
) -> str | bool:
    """Delete a session that has no live reply.

    Gives True when it is gone now, False when there is none such, and the id of the
    live reply that has to be ended first.
    """
    async with database.transaction() as transaction:
        locked = await transaction.fetch_one(
            "lock_session",
            session_id=session_id,
            channel=person.channel,
            person=person.id,
        )
        if locked is None:
            return False
        live = await transaction.fetch_one("find_live_reply", session_id=session_id)
        if live is not None:
            return str(live.message_id)
        await transaction.execute("delete_session", session_id=session_id)
        return True
