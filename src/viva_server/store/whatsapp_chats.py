"""WhatsApp's queue in the database: chats with work, their turns, one owner each.

Each function is one statement, or says what it does more. What an owner writes touches
only chats that are still its own: None or False means that another process has taken
them over. All raise `StoreUnavailableError` and `TransientStoreError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from viva_server.errors import FencedError
from viva_server.store.db import Database
from viva_server.store.replies import ClosedReply
from viva_server.store.statements import Statements
from viva_server.words import FinishReason, Status

WINDOW_SECONDS = 600.0
"""The time in which the answers of a chat are counted."""


class Chat(NamedTuple):
    """A chat of one instance; `jid` is where its replies go."""

    instance: str
    jid: str


class ChatState(NamedTuple):
    """All that decides what is done in a claimed chat; see the query load_chat."""

    is_paused: bool | None
    paused_by: float | None
    turn_id: str | None
    user_message_id: str | None
    runs: int | None
    reply_status: Status | None
    finish_reason: FinishReason | None
    error_code: str | None
    error_is_final: bool | None
    full_seconds: float | None
    phone_jid: str | None
    lid_chat: str | None


class WaitingMessage(NamedTuple):
    """A person's message that wants an answer; times are epoch seconds."""

    message_id: str
    kind: str
    text: str | None
    sent_at: float
    age_seconds: float


class Parted(NamedTuple):
    """An ended reply, and its (id, text) in the outbox if it is sent."""

    reply: ClosedReply
    parts: Sequence[tuple[str, str]]


async def claim_chats(database: Database, owner: str, *, chats: int) -> list[Chat]:
    """Take at most so many chats whose time has come, for this owner alone."""
    rows = await database.fetch("claim_chats", owner=owner, chats=chats)
    return [Chat(row.instance, row.jid) for row in rows]


async def load_claimed(database: Database, owner: str) -> set[Chat]:
    """Give the chats that an owner has."""
    rows = await database.fetch("load_claimed", owner=owner)
    return {Chat(row.instance, row.jid) for row in rows}


async def load_chat(
    database: Database, owner: str, chat: Chat, *, answers: int
) -> ChatState | None:
    """Look at everything that decides; so many `answers` are allowed in ten minutes."""
    row = await database.fetch_one(
        "load_chat",
        owner=owner,
        instance=chat.instance,
        jid=chat.jid,
        answers=answers,
        window_seconds=WINDOW_SECONDS,
    )
    return None if row is None else ChatState._make(row)


async def load_waiting(
    database: Database, chat: Chat, turn_id: str | None
) -> list[WaitingMessage]:
    """Load the messages of a turn, or those that have none, in order of time."""
    if turn_id is not None:
        rows = await database.fetch("load_turn_messages", turn_id=turn_id)
    else:
        rows = await database.fetch(
            "load_waiting", instance=chat.instance, jid=chat.jid
        )
    return [WaitingMessage._make(row) for row in rows]


async def skip_messages(
    database: Database, owner: str, chat: Chat, message_ids: Sequence[str], why: str
) -> None:
    """Say why messages are not answered."""
    await database.execute(
        "skip_messages",
        owner=owner,
        instance=chat.instance,
        jid=chat.jid,
        message_ids=list(message_ids),
        why_not=why,
    )


async def add_turn(
    database: Database,
    owner: str,
    chat: Chat,
    *,
    turn_id: str,
    user_message_id: str,
    message_ids: Sequence[str],
) -> bool:
    """Begin a turn with these messages."""
    row = await database.fetch_one(
        "add_turn",
        owner=owner,
        instance=chat.instance,
        jid=chat.jid,
        turn_id=turn_id,
        user_message_id=user_message_id,
        message_ids=list(message_ids),
    )
    return row is not None


async def start_run(
    database: Database, owner: str, turn_id: str, reply_id: str
) -> int | None:
    """Count a try and name its reply; gives the number of tries."""
    row = await database.fetch_one(
        "start_run", owner=owner, turn_id=turn_id, reply_id=reply_id
    )
    return None if row is None else int(row.runs)


async def take_back_run(
    database: Database, owner: str, turn_id: str, reply_id: str
) -> None:
    """Uncount a try that could not begin."""
    await database.execute(
        "take_back_run", owner=owner, turn_id=turn_id, reply_id=reply_id
    )


async def close_turns(
    database: Statements, owner: str, replies: Sequence[Parted]
) -> set[str]:
    """Close ended replies of turns; the parts of whole ones go into the outbox with it.

    Repeating it changes nothing. Gives the ids of the replies that are stored, as
    `close_replies` does.

    Raises:
        FencedError: another process has declared this owner dead.
    """
    rows = [(*each.reply, each.parts) for each in replies]
    closed = await database.fetch(
        "close_turns", owner=owner, replies=msgspec.json.encode(rows).decode()
    )
    if not closed:
        raise FencedError
    return {row.message_id for row in closed if row.message_id is not None}


async def end_turn(
    database: Database,
    owner: str,
    turn_id: str,
    *,
    state: str,
    error: str | None,
    outbox_id: str,
    text: str,
) -> bool:
    """End a turn without a reply of the model; `text` is sent in its place."""
    row = await database.fetch_one(
        "end_turn",
        owner=owner,
        turn_id=turn_id,
        state=state,
        error=error,
        outbox_id=outbox_id,
        text=text,
    )
    return row is not None


async def release_chat(
    database: Database, owner: str, chat: Chat, again_seconds: float | None
) -> None:
    """Give a chat back; without `again_seconds` only a new message makes it due."""
    await database.execute(
        "release_chat",
        owner=owner,
        instance=chat.instance,
        jid=chat.jid,
        again_seconds=again_seconds,
    )


async def end_pause(database: Database, owner: str, chat: Chat) -> None:
    """Let the assistant answer again in a chat of this owner."""
    await database.execute(
        "end_pause", owner=owner, instance=chat.instance, jid=chat.jid
    )


async def merge_chats(
    database: Database, owner: str, lid_chat: Chat, chat: Chat, people: tuple[str, str]
) -> bool:
    """Make a lid's chat the phone's, with its session; `people` are both their names.

    False, and nothing done, while the lid's chat is worked on or has a turn of its own.
    """
    async with database.transaction() as transaction:
        locked = await transaction.fetch_one(
            "lock_chat", instance=lid_chat.instance, jid=lid_chat.jid
        )
        if locked is None or locked.has_turn or locked.owner not in {None, owner}:
            return False
        await transaction.execute(
            "move_chat",
            instance=chat.instance,
            lid=lid_chat.jid,
            jid=chat.jid,
            lid_person=people[0],
            person=people[1],
        )
        return True
