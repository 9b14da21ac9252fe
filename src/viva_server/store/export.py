"""All that is stored of a person, read page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from viva_server.store.driver.database import Connection, Database, Row
from viva_server.store.people import Person, Subject

Record = dict[str, Any]
Records = AsyncGenerator[Record, None]

_SESSIONS = 200
_MESSAGES = 100  # of up to 100 000 characters each
_KEYS = 500
_TURNS = 100
_LOOKED_AT = 1000
_BELOW_ALL = -(2**31)  # seq is an integer
_DELIVERIES = 10  # of up to 8 MiB each
FIRST_ID = "00000000-0000-0000-0000-000000000000"

# One view of everything, however long it takes and whoever writes meanwhile. A pager
# on the other end of a pipe may hold it up for longer than the 10 s of others.
_ONE_VIEW = """
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL idle_in_transaction_session_timeout = 0;
"""


async def export_person(
    database: Database, subject: Subject, *, query_seconds: float
) -> Records:
    """Give sessions, each with its messages, then keys; of WhatsApp its chats, too.

    A chat's messages are followed by its turns, each page by what was sent in it; at
    last the deliveries.

    All is of one moment; a page of it is in memory at a time. Close the iterator if
    you leave it early: it has a connection of its own.

    Raises:
        StoreError: or one of its kinds; what was given until then is not all.
    """
    connection = await database.connect(query_seconds=query_seconds)
    try:
        await connection.execute_script(_ONE_VIEW)
        for person in subject.people:
            async for record in _sessions(connection, person):
                yield record
            async for record in _keys(connection, person):
                yield record
        for part in (_chats, _deliveries):
            async for record in part(connection, subject):
                yield record
    finally:
        await connection.close()


async def _sessions(connection: Connection, person: Person) -> Records:
    after_at, after_id = "-infinity", FIRST_ID
    while page := await connection.fetch(
        "export_sessions",
        channel=person.channel,
        person=person.id,
        after_at=after_at,
        after_id=after_id,
        batch=_SESSIONS,
    ):
        for session in page:
            yield _record("session", session)
            async for record in _messages(connection, session.id):
                yield record
        after_at, after_id = page[-1].updated_at, page[-1].id


async def _messages(connection: Connection, session_id: str) -> Records:
    after_seq = _BELOW_ALL
    while page := await connection.fetch(
        "export_messages", session_id=session_id, after_seq=after_seq, batch=_MESSAGES
    ):
        for message in page:
            yield _record("message", message)
        after_seq = page[-1].seq


async def _keys(connection: Connection, person: Person) -> Records:
    after_key = ""  # a key has a character at least
    while page := await connection.fetch(
        "export_keys",
        channel=person.channel,
        person=person.id,
        after_key=after_key,
        batch=_KEYS,
    ):
        for key in page:
            yield _record("idempotency_key", key)
        after_key = page[-1].key


async def _chats(connection: Connection, subject: Subject) -> Records:
    if subject.instance is None:
        return
    jids = list(subject.jids)
    for chat in await connection.fetch(
        "export_chats", instance=subject.instance, jids=jids
    ):
        yield _record("whatsapp_chat", chat)
    for jid in jids:
        async for record in _chat_messages(connection, subject.instance, jid):
            yield record
        async for record in _turns(connection, subject.instance, jid):
            yield record


async def _chat_messages(connection: Connection, instance: str, jid: str) -> Records:
    after_at, after_id = "-infinity", ""
    while page := await connection.fetch(
        "export_whatsapp_messages",
        instance=instance,
        jid=jid,
        after_at=after_at,
        after_message_id=after_id,
        batch=_MESSAGES,
    ):
        for message in page:
            yield _record("whatsapp_message", message)
        after_at, after_id = page[-1].sent_at, page[-1].message_id


async def _turns(connection: Connection, instance: str, jid: str) -> Records:
    after_id = FIRST_ID
    while page := await connection.fetch(
        "export_turns", instance=instance, jid=jid, after_id=after_id, batch=_TURNS
    ):
        for turn in page:
            yield _record("whatsapp_turn", turn)
        for send in await connection.fetch(
            "export_sends", turn_ids=[turn.id for turn in page]
        ):
            yield _record("whatsapp_send", send)
        after_id = page[-1].id


async def _deliveries(connection: Connection, subject: Subject) -> Records:
    if subject.instance is None:
        return
    after_id = FIRST_ID
    while stretch := await connection.fetch(
        "look_for_deliveries",
        instance=subject.instance,
        jids=list(subject.jids),
        after_id=after_id,
        batch=_LOOKED_AT,
    ):
        found = [row.id for row in stretch if row.is_found]
        for ids in _parts(found, _DELIVERIES):
            for delivery in await connection.fetch("export_deliveries", ids=ids):
                yield _record("delivery", delivery)
        after_id = stretch[-1].id


def _parts(ids: Sequence[str], size: int) -> list[list[str]]:
    return [list(ids[first : first + size]) for first in range(0, len(ids), size)]


def _record(kind: str, row: Row) -> Record:
    return {"type": kind, **row._asdict()}
