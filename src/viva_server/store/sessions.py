"""Sessions and messages in the database, as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from viva_server.store.driver.database import Database
from viva_server.store.people import Person
from viva_server.values import Channel, FinishReason, Status

_ABOVE_ALL = 2**31 - 1  # seq is an integer


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


async def add_session(
    database: Database, person: Person, session_id: str, mode: str | None
) -> Session:
    """Make a new session."""
    row = await database.fetch_one(
        "add_session",
        session_id=session_id,
        channel=person.channel,
        person=person.id,
        mode=mode,
    )
    assert row is not None, "INSERT … RETURNING gives one row"
    return Session._make(row)


async def add_first_session(
    database: Database, person: Person, session_id: str, mode: str | None
) -> None:
    """Make a session unless the person has one by now."""
    await database.execute(
        "add_first_session",
        session_id=session_id,
        channel=person.channel,
        person=person.id,
        mode=mode,
    )


async def find_session(
    database: Database, person: Person, session_id: str | None
) -> Session | None:
    """Find a person's session by id, or the newest one where no id is given."""
    if session_id is None:
        row = await database.fetch_one(
            "find_newest_session", channel=person.channel, person=person.id
        )
    else:
        row = await database.fetch_one(
            "find_session",
            session_id=session_id,
            channel=person.channel,
            person=person.id,
        )
    return None if row is None else Session._make(row)


async def load_messages(
    database: Database, session_id: str, *, before_seq: int | None, messages: int
) -> list[Message]:
    """Load the newest messages below a seq, newest first."""
    rows = await database.fetch(
        "load_messages",
        session_id=session_id,
        before_seq=_ABOVE_ALL if before_seq is None else before_seq,
        messages=messages,
    )
    return [Message._make(row) for row in rows]


async def load_message(database: Database, message_id: str) -> Message | None:
    """Load one message, whoever it belongs to: ask only for what is the caller's."""
    row = await database.fetch_one("load_message", message_id=message_id)
    return None if row is None else Message._make(row)


async def list_sessions(
    database: Database, person: Person, *, page: int, page_size: int
) -> tuple[list[SessionItem], int]:
    """Load one page of a person's sessions, newest first, and how many there are."""
    rows = await database.fetch(
        "list_sessions",
        channel=person.channel,
        person=person.id,
        page_size=page_size,
        skipped=(page - 1) * page_size,
    )
    total = await database.fetch_one(
        "count_sessions", channel=person.channel, person=person.id
    )
    assert total is not None, "count(*) gives one row"
    return [SessionItem._make(row) for row in rows], total.total


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
