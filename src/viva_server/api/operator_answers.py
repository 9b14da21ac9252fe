"""What an operator asks, and is answered; no I/O.

It names phones, since somebody has to be called back; it has no names, no content and
nobody of the web chat.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from viva_server.api.query import Pairs, bad_query, single_values
from viva_server.api.wire import Count, Id, Time, WireError, is_id
from viva_server.words import Channel

MAX_IDS = 100
MAX_PHONE_CHARS = 255

_MAX_CURSOR_CHARS = 100


class ProcessItem(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has not left in order.

    `silent_seconds` is the age of its heartbeat. `dead_at`: another process has closed
    its replies then.
    """

    id: Id
    version: str
    host: str
    pid: int
    started_at: Time
    silent_seconds: float
    dead_at: Time | None
    live_replies: Count
    readers: Count


class ReplyItem(msgspec.Struct, frozen=True, kw_only=True):
    """A live reply; `chars` are stored.

    `left_at`: since when its own process has no reader of it. `far_processes` have
    readers of it as well.
    """

    id: Id
    channel: Channel
    process_id: Id
    created_at: Time
    chars: Count
    left_at: Time | None
    far_processes: Count


class EventItem(msgspec.Struct, frozen=True, kw_only=True):
    """How many webhooks of an event came in each minute, oldest first."""

    event: str
    counts: list[Count]


class WebhookItem(msgspec.Struct, frozen=True, kw_only=True):
    """The webhooks of the last minutes, by event; a duplicate counts once.

    `first_minute` is where the counts begin; the last one is not over yet.
    `is_capped`: in some minute more came than are counted.
    """

    first_minute: Time
    is_capped: bool
    events: list[EventItem]


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """What waits, each counted up to `counted_up_to`.

    `turns_due` could begin and nobody has taken them yet, the first of them since
    `turns_due_since`; `turns_later` wait on purpose: for more messages, a pause, a
    limit.
    """

    turns_due: Count
    turns_due_since: Time | None
    turns_later: Count
    turns_running: Count
    parts_waiting: Count
    news_waiting: Count
    dead_turns: Count
    dead_parts: Count
    dead_news: Count
    counted_up_to: Count


class MessageState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a person's message on WhatsApp has come.

    `state`: `skipped` (`reason` says why), `waiting`, `running`, `dead`, `answered`, or
    that of the part of its answer that went worst; `receipt` is that part's.
    """

    message_id: str
    instance: str
    chat: str
    kind: str
    sent_at: Time
    state: str
    reason: str | None
    receipt: str | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """How the whole service is now, by the database; `process_id` tells who answers."""

    now: Time
    process_id: Id
    processes: list[ProcessItem]
    replies: list[ReplyItem]
    webhooks: WebhookItem
    work: WorkItem
    messages: list[MessageState]


class DeadItem(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be answered, sent or applied.

    `state` `unknown`: it may have arrived, and a replay may send it twice.
    `message_id` is a WhatsApp message by which it can be traced.
    """

    id: Id
    kind: Literal["turn", "send", "event"]
    instance: str
    chat: str | None
    state: Literal["dead", "unknown"]
    reason: str | None
    since: Time
    message_id: str | None


class DeadPage(msgspec.Struct, frozen=True, kw_only=True):
    """What is dead, the newest first; `next` is the cursor of the page after it."""

    items: list[DeadItem]
    next: str | None


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the dead are to be done again."""

    ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_IDS)]


class ReplayItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one of them.

    `not_dead`: nothing dead has this id, any more; `chat_busy`: the chat has a running
    turn, so that this one has to wait for its end.
    """

    id: Id
    outcome: Literal["replayed", "not_dead", "chat_busy"]


class ReplayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each, in the order in which they were named."""

    items: list[ReplayItem]


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose messages are wanted. In a body, since an address ends up in logs."""

    phone: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_PHONE_CHARS,
            description="However it is written, or a jid; Brazil's numbers also "
            "without 55 and without the ninth digit.",
        ),
    ]


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The newest messages of that phone."""

    messages: list[MessageState]


class DeadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the dead is wanted."""

    before: Annotated[
        str | None, Meta(description="The `next` of the page before; else the first.")
    ] = None


def read_dead_query(pairs: Pairs) -> tuple[str, str] | None:
    """Read the cursor `before`: a time and an id; None without one.

    Raises:
        WireError: 400 for what is no cursor, or stands twice.
    """
    cursor = single_values(pairs).get("before")
    if cursor is None:
        return None
    written, _, dead_id = cursor[:_MAX_CURSOR_CHARS].partition("_")
    at = _utc(written)
    if at is None or not is_id(dead_id):
        raise bad_query("before", "must be the `next` of a page")
    return at, dead_id


def _utc(written: str) -> str | None:
    """Write a time as PostgreSQL reads it; ISO 8601 has forms that it does not know."""
    try:
        at = datetime.fromisoformat(written)
        return None if at.tzinfo is None else at.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return None


def read_replay(body: dict[str, Any]) -> list[str]:
    """Read the ids of a ReplayRequest, each once; raise WireError 422 for others."""
    ids = body.get("ids")
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_IDS:
        raise _invalid([("/ids", f"must be an array of 1 to {MAX_IDS} ids")])
    wrong = [
        (f"/ids/{place}", "must be an id")
        for place, each in enumerate(ids)
        if not isinstance(each, str) or not is_id(each)
    ]
    if wrong:
        raise _invalid(wrong)
    return list(dict.fromkeys(each.lower() for each in ids))


def read_search(body: dict[str, Any]) -> str:
    """Read the phone of a SearchRequest; raise WireError 422 if it is no text."""
    phone = body.get("phone")
    if not isinstance(phone, str) or not 1 <= len(phone) <= MAX_PHONE_CHARS:
        raise no_phone()
    return phone


def no_phone() -> WireError:
    """Make the 422 for what is no phone number."""
    return _invalid([("/phone", "must be a phone number, with its area code")])


def _invalid(errors: list[tuple[str, str]]) -> WireError:
    detail = "The body has members that cannot be taken."
    return WireError("validation_error", detail, errors)
