"""Replies in the database: written ahead, closed, followed, asked to end.

Each function is one statement, or says what it does more. A cancelled caller does not
cancel the statement (`store.driver`). All raise `StoreUnavailableError` and
`TransientStoreError`; writes by an owner raise `FencedError` when another process has
declared that owner dead, and have written nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from viva_server.errors import FencedError
from viva_server.store.driver.database import Database, Statements
from viva_server.store.people import Person
from viva_server.words import EndRequest, FinishReason, Status


class StoredReply(NamedTuple):
    """A reply as the database has it; `text` of a live one is what is committed."""

    message_id: str
    session_id: str
    seq: int
    status: Status
    finish_reason: FinishReason | None
    error_code: str | None
    error_is_final: bool
    message_count: int
    owner: str | None
    text: str
    user_message_id: str
    mode: str | None


class FollowedReply(NamedTuple):
    """News of a reply of another process: `text` goes on where the caller stood."""

    message_id: str
    status: Status
    finish_reason: FinishReason | None
    error_code: str | None
    error_is_final: bool
    message_count: int
    text: str


class ClosedReply(NamedTuple):
    """What the closing statement writes for one reply."""

    message_id: str
    text: str
    status: Status
    finish_reason: FinishReason
    error_code: str | None = None
    error_is_final: bool = False
    usage: Mapping[str, Any] | None = None


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """New text of one reply; `start` counts the characters before it.

    There is one per token; a named tuple takes four times as long to make.
    """

    message_id: str
    start: int
    text: str


class Request(NamedTuple):
    """What other processes want of a reply of this owner."""

    message_id: str
    end_requested: EndRequest | None
    is_read_remotely: bool


async def append_chunks(
    database: Statements, owner: str, chunks: Sequence[Chunk]
) -> None:
    """Commit new text of many replies; repeating the same chunks changes nothing."""
    row = await database.fetch_one(
        "append_chunks",
        owner=owner,
        chunks=_as_json(chunks),
    )
    if row is None:
        raise FencedError


async def close_replies(
    database: Statements, owner: str, replies: Sequence[ClosedReply]
) -> set[str]:
    """Close ended replies; give the ids of those that are stored.

    Those that an earlier attempt of this owner has closed, whose answer was lost, are
    among them; a dead owner's attempt raises `FencedError` instead. The row of one that
    is missing is gone: a failover lost it, or somebody deleted it.
    """
    rows = await database.fetch(
        "close_replies",
        owner=owner,
        replies=_as_json(replies),
    )
    if not rows:
        raise FencedError
    return {row.message_id for row in rows if row.message_id is not None}


async def load_reply(
    database: Database, person: Person, message_id: str
) -> StoredReply | None:
    """Load a reply of this person; None if there is none such."""
    row = await database.fetch_one(
        "load_reply",
        channel=person.channel,
        person=person.id,
        message_id=message_id,
    )
    return None if row is None else StoredReply._make(row)


async def follow_replies(
    database: Database, known: dict[str, int]
) -> list[FollowedReply]:
    """Read updates of replies by id, from the characters known of each.

    A reply that is missing in the answer has been deleted.
    """
    rows = await database.fetch(
        "follow_replies", message_ids=list(known), known=list(known.values())
    )
    return [FollowedReply._make(row) for row in rows]


async def request_end(
    database: Database, message_id: str, end_requested: EndRequest
) -> str | None:
    """Ask for the end of a live reply; give its owner, or None if it has ended."""
    row = await database.fetch_one(
        "request_end", message_id=message_id, end_requested=end_requested
    )
    return None if row is None else str(row.owner)


async def load_requests(database: Database, owner: str) -> list[Request]:
    """Read what other processes want of this owner's replies."""
    rows = await database.fetch("load_requests", owner=owner)
    return [Request._make(row) for row in rows]


async def mark_left(database: Database, owner: str, are_read: dict[str, bool]) -> None:
    """Write which replies of this owner lost, or found again, their last reader."""
    await database.execute(
        "mark_left",
        owner=owner,
        message_ids=list(are_read),
        are_read=list(are_read.values()),
    )


async def renew_far_readers(
    database: Database, process_id: str, message_ids: Sequence[str]
) -> None:
    """Say that this process has readers of these replies of other owners."""
    await database.execute(
        "renew_far_readers", process_id=process_id, message_ids=list(message_ids)
    )


async def remove_far_readers(
    database: Database, process_id: str, message_ids: Sequence[str]
) -> None:
    """Say that the last reader here has left these replies."""
    await database.execute(
        "remove_far_readers", process_id=process_id, message_ids=list(message_ids)
    )


async def load_owned(database: Database, owner: str) -> set[str]:
    """Give the ids of the live replies that an owner has."""
    return {row.message_id for row in await database.fetch("load_owned", owner=owner)}


async def close_orphans(
    database: Statements,
    owner: str,
    message_ids: Sequence[str],
    finish_reason: FinishReason = "crashed",
) -> None:
    """Close replies of this owner that it does not generate, with their stored text."""
    await database.execute(
        "close_from_journal",
        process_id=owner,
        message_ids=list(message_ids),
        finish_reason=finish_reason,
    )


def _as_json(rows: Sequence[Chunk] | Sequence[ClosedReply]) -> str:
    """Encode rows as arrays of their fields, in order.

    Against parallel arrays this takes a fourteenth of the client's CPU and a quarter of
    the server's: psycopg2 quotes each element of an array by itself.
    """
    return msgspec.json.encode(rows).decode()
