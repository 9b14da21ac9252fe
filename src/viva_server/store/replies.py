"""Replies in the database: written ahead, closed, followed, asked to end.

Each function is one statement, or says what it does more. A cancelled caller does not
cancel the statement (`store.driver`). All raise `StoreUnavailableError` and
`TransientStoreError`; writes by an owner raise `FencedError` when another process has
declared that owner dead, and have written nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from viva_server.errors import FencedError
from viva_server.responders.protocol import ConversationMessage
from viva_server.store.driver.database import Database, Statements
from viva_server.store.people import Person
from viva_server.values import Channel, EndRequest, FinishReason, Status


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
    live_owner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """What start_reply stores; with `ask` False the user's message is there already.

    `replaces` is the reply whose place the new one takes.
    """

    person: Person
    session_id: str
    expected_count: int
    ask: bool
    user_message_id: str
    message_id: str
    content: str
    title: str | None
    mode: str | None
    context_length: int | None
    key: str | None
    body_sha256: bytes
    replaces: str | None = None


class Started(NamedTuple):
    """A reply's row is committed; `seq` is its place in the session.

    `mode` is the message's own, else the session's.
    """

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


async def start_reply(
    database: Database, owner: str, turn: NewTurn, *, live_limit: int
) -> Started | OverLimit | None:
    """Store the user's message and the reply's row in one commit.

    None means that the session has changed since `find_turn`: look again.

    Raises:
        ConstraintError: another turn won the key, the session or the place of the
            reply that this one replaces: look again.
        FencedError: another process has declared this owner dead.
    """
    [row] = await database.fetch(
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
        replaces=turn.replaces,
        live_limit=live_limit,
    )
    if not row.alive:
        raise FencedError
    if row.message_count is not None:
        return Started(row.message_count, row.mode)
    if row.live_replies >= live_limit:
        return OverLimit(row.live_replies)
    return None


async def load_history(
    database: Database,
    session_id: str,
    *,
    before_seq: int,
    messages: int,
    chars: int,
    channel: Channel,
) -> tuple[ConversationMessage, ...]:
    """Load what the model may see, oldest first: what the person has seen, too.

    The newest `messages` within `chars` characters; the last is the question, which is
    always there. A cut reply is read in the web chat; on WhatsApp it is never sent.
    """
    rows = await database.fetch(
        "load_history",
        session_id=session_id,
        before_seq=before_seq,
        messages=messages,
        history_chars=chars,
        statuses=["complete", "partial"] if channel == "web" else ["complete"],
    )
    return tuple(ConversationMessage(row.role, row.content) for row in reversed(rows))


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
    return await database.fetch_one(
        "load_reply",
        StoredReply,
        channel=person.channel,
        person=person.id,
        message_id=message_id,
    )


def _as_json(rows: Sequence[Chunk] | Sequence[ClosedReply]) -> str:
    """Encode rows as arrays of their fields, in order.

    Against parallel arrays this takes a fourteenth of the client's CPU and a quarter of
    the server's: psycopg2 quotes each element of an array by itself.
    """
    return msgspec.json.encode(rows).decode()
