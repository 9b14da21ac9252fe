"""Replies in the database: found, started, written ahead, closed, followed.

Each function is one statement, or says what it does more. A cancelled caller does not
cancel the statement (`store.db`). All raise `StoreUnavailableError` and
`TransientStoreError`; writes by an owner raise `FencedError` when another process has
declared that owner dead, and have written nothing then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from viva_server.errors import FencedError
from viva_server.responders import ConversationMessage
from viva_server.store.db import Database
from viva_server.store.people import Person

Status = Literal["streaming", "complete", "partial", "failed"]
FinishReason = Literal[
    "stop",
    "length",
    "stopped",
    "disconnected",
    "superseded",
    "shutdown",
    "crashed",
    "upstream_error",
    "limit",
]
EndRequest = Literal["stopped", "superseded"]

FAR_READER_SECONDS = 3.0
"""How long a far reader counts after its process last said so (it does each second)."""


class TurnState(NamedTuple):
    """All that decides what a new message does; see the query find_turn."""

    session_id: str | None
    message_count: int | None
    newest_id: str | None
    newest_role: str | None
    newest_status: Status | None
    user_message_id: str | None
    same_text: bool | None
    live_id: str | None
    live_is_read: bool
    key_message_id: str | None
    same_body: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """What start_reply stores; with `ask` False the user's message is there already."""

    person: Person
    session_id: str
    expected_count: int
    ask: bool
    user_message_id: str
    message_id: str
    content: str
    title: str
    mode: str | None
    context_length: int | None
    key: str | None
    body_sha256: bytes


class Started(NamedTuple):
    """A reply's row is committed; `seq` is its place in the session."""

    seq: int
    mode: str | None


class OverLimit(NamedTuple):
    """The person has this many live replies already, too many for another."""

    live_replies: int


class StoredReply(NamedTuple):
    """A reply as the database has it; `text` of a live one is what is committed."""

    message_id: str
    session_id: str
    seq: int
    status: Status
    finish_reason: FinishReason | None
    error_code: str | None
    message_count: int
    owner: str | None
    text: str
    user_message_id: str


class FollowedReply(NamedTuple):
    """News of a reply of another process: `text` goes on where the caller stood."""

    message_id: str
    status: Status
    finish_reason: FinishReason | None
    error_code: str | None
    message_count: int
    text: str


class ClosedReply(NamedTuple):
    """What the closing statement writes for one reply."""

    message_id: str
    text: str
    status: Status
    finish_reason: FinishReason
    error_code: str | None


class Chunk(NamedTuple):
    """New text of one reply; `start` counts the characters before it."""

    message_id: str
    start: int
    text: str


class Request(NamedTuple):
    """What other processes want of a reply of this owner."""

    message_id: str
    end_requested: EndRequest | None
    is_read_far: bool


async def find_turn(
    database: Database,
    person: Person,
    *,
    session_id: str | None,
    content: str,
    key: str | None,
    body_sha256: bytes,
) -> TurnState:
    """Look at everything that decides what a new message does."""
    row = await database.fetch_one(
        "find_turn",
        channel=person.channel,
        person=person.id,
        session_id=session_id,
        content=content,
        key=key,
        body_sha256=body_sha256,
        far_reader_seconds=FAR_READER_SECONDS,
    )
    assert row is not None, "find_turn always gives one row"
    return TurnState._make(row)


async def start_reply(
    database: Database, owner: str, turn: NewTurn, *, live_limit: int
) -> Started | OverLimit | None:
    """Store the user's message and the reply's row in one commit.

    None means that the session has changed since `find_turn`: look again.

    Raises:
        ConstraintError: another turn won the key or the session: look again.
    """
    row = await database.fetch_one(
        "start_reply",
        owner=owner,
        channel=turn.person.channel,
        person=turn.person.id,
        session_id=turn.session_id,
        expected_count=turn.expected_count,
        ask=turn.ask,
        user_message_id=turn.user_message_id,
        message_id=turn.message_id,
        content=turn.content,
        title=turn.title,
        mode=turn.mode,
        meta={}
        if turn.context_length is None
        else {"contexto_len": turn.context_length},
        key=turn.key,
        body_sha256=turn.body_sha256,
        live_limit=live_limit,
    )
    assert row is not None, "start_reply always gives one row"
    if not row.alive:
        raise FencedError
    if row.message_count is not None:
        return Started(row.message_count, row.mode)
    if row.live_replies >= live_limit:
        return OverLimit(row.live_replies)
    return None


async def load_history(
    database: Database, session_id: str, *, before_seq: int, messages: int
) -> tuple[ConversationMessage, ...]:
    """Load what the model sees, oldest first."""
    rows = await database.fetch(
        "load_history", session_id=session_id, before_seq=before_seq, messages=messages
    )
    return tuple(ConversationMessage(row.role, row.content) for row in reversed(rows))


async def append_chunks(
    database: Database, owner: str, chunks: Sequence[Chunk]
) -> None:
    """Commit new text of many replies; repeating the same chunks changes nothing."""
    row = await database.fetch_one(
        "append_chunks",
        owner=owner,
        message_ids=[chunk.message_id for chunk in chunks],
        starts=[chunk.start for chunk in chunks],
        texts=[chunk.text for chunk in chunks],
    )
    if row is None:
        raise FencedError


async def close_replies(
    database: Database, owner: str, replies: Sequence[ClosedReply]
) -> set[str]:
    """Close ended replies; give the ids of those that this call closed.

    One that is missing was closed before: by an earlier try of this owner whose answer
    was lost, since a dead owner's try raises `FencedError` instead.
    """
    rows = await database.fetch(
        "close_replies",
        owner=owner,
        message_ids=[reply.message_id for reply in replies],
        texts=[reply.text for reply in replies],
        statuses=[reply.status for reply in replies],
        finish_reasons=[reply.finish_reason for reply in replies],
        error_codes=[reply.error_code for reply in replies],
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
    """Read news of replies by id, from the characters known of each.

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
    rows = await database.fetch(
        "load_requests", owner=owner, far_reader_seconds=FAR_READER_SECONDS
    )
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


async def close_strays(
    database: Database, owner: str, message_ids: Sequence[str]
) -> None:
    """Close replies of this owner that it does not generate, with their stored text."""
    await database.execute(
        "close_from_journal",
        process_id=owner,
        message_ids=list(message_ids),
        finish_reason="upstream_error",
    )
