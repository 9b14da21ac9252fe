"""A person's turn in the database: looked at, stored, and what the model sees of it.

Each function is one statement. A cancelled caller does not cancel it (`store.driver`).
All raise `StoreUnavailableError` and `TransientStoreError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from viva_server.errors import FencedError
from viva_server.responders import ConversationMessage
from viva_server.store.driver.database import Database
from viva_server.store.people import Person
from viva_server.words import Channel, Status


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


async def find_turn(
    database: Database,
    person: Person,
    *,
    session_id: str | None,
    content: str,
    key: str | None,
    body_sha256: bytes,
    replaces: str | None,
) -> TurnState:
    """Look at everything that decides what a new message does.

    With `replaces` the session is that of this reply of the person.
    """
    row = await database.fetch_one(
        "find_turn",
        channel=person.channel,
        person=person.id,
        session_id=session_id,
        content=content,
        key=key,
        body_sha256=body_sha256,
        replaces=replaces,
    )
    assert row is not None, "find_turn always gives one row"
    return TurnState._make(row)


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
        replaces=turn.replaces,
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
