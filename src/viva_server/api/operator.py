"""What operators ask: how the service is, the dead and their replay, a message's way.

It names phones, since somebody has to be called back; it has no names, no content and
nobody of the web chat.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from viva_server.api import wire
from viva_server.api.operations import ADMIN_SCOPE
from viva_server.api.problems import Problem
from viva_server.api.request import IdentifyCaller, read_json
from viva_server.api.wire import (
    Count,
    Id,
    Pairs,
    Time,
    bad_query,
    is_id,
    single_values,
)
from viva_server.auth import require_scope
from viva_server.services import Services
from viva_server.store import operator as store
from viva_server.store.driver.database import Database, Row
from viva_server.store.operator import WebhookMinutes, WebhookRates
from viva_server.values import Channel
from viva_server.whatsapp.events.addresses import jids_of

MAX_IDS = 100
MAX_PHONE_CHARS = 255

_MAX_CURSOR_CHARS = 100
_MAX_KEY_ID_CHARS = 255
_NOT_STORED = {"Cache-Control": "no-store"}

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

logger = logging.getLogger(__name__)


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


class TraceDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event that named the message; `redelivered_at` are its later deliveries.

    `trusted`: it came with the right secret. `problem`: why it could not be applied.
    """

    instance: str
    event: str
    kind: str
    trusted: bool
    received_at: Time
    deliveries: int
    redelivered_at: list[Time]
    receipt: str | None
    problem: str | None


class TraceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message, stored; its turn, or why it is not answered."""

    instance: str
    kind: str
    sent_at: Time
    stored_at: Time
    why_not: str | None
    edited_at: Time | None
    deleted_at: Time | None
    turn_id: str | None


class TraceReply(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a turn."""

    id: str
    status: str
    finish_reason: str | None
    error_code: str | None
    created_at: Time
    chars: int


class TraceAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request to send a part, and what became of it."""

    at: Time
    outcome: str
    reason: str | None = None


class TraceReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What WhatsApp said of a part that was sent."""

    receipt: str | None
    at: Time


class TraceSend(msgspec.Struct, frozen=True, kw_only=True):
    """One part of what was sent; `receipt` is how far it has come."""

    id: str
    state: str
    error: str | None
    message_id: str | None
    receipt: str | None
    attempts: list[TraceAttempt]
    created_at: Time
    sent_at: Time | None
    receipts: list[TraceReceipt]


class TraceTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn: the replies that it was tried with, and what it sent."""

    id: str
    state: str
    runs: int
    error: str | None
    created_at: Time
    ended_at: Time | None
    replies: list[TraceReply]
    sends: list[TraceSend]


class TraceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole way of one WhatsApp message, without any content."""

    message_id: str
    deliveries: list[TraceDelivery]
    messages: list[TraceMessage]
    turns: list[TraceTurn]


class OperatorHandlers:
    """What happens on all processes, and replays; for the scope admin."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify
        self._minutes = WebhookMinutes(services.database)

    @property
    def _database(self) -> Database:
        return self._services.database

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """Show how the whole service is now.

        Of all processes, from the database: processes, the live replies that have run
        longest, webhooks per minute, what waits, the newest messages on WhatsApp. It
        has phones, and no content.
        """
        await self._admit(request)
        database = self._database
        [work] = await database.fetch("count_work", most=store.COUNTED_UP_TO)
        minute = int(work.now.timestamp() // 60)
        processes, replies, messages, rates = await asyncio.gather(
            database.fetch("show_processes", rows=store.PROCESSES),
            database.fetch("show_replies", rows=store.REPLIES),
            store.show_newest_messages(database),
            self._minutes.read(minute),
        )
        body = Overview(
            now=work.now,
            process_id=self._services.runtime.ownership.id,
            processes=_all_shown(ProcessItem, processes),
            replies=_all_shown(ReplyItem, replies),
            webhooks=_webhooks(rates),
            work=_work(work),
            messages=_all_shown(MessageState, messages),
        )
        return _answer(body)

    async def dead(self, request: web.Request) -> web.StreamResponse:
        """List what could not be answered, sent or applied.

        Turns, parts and news; parts of unknown outcome among them.
        """
        await self._admit(request)
        cursor = read_dead_query(request.query.items())
        place = store.Place() if cursor is None else store.Place._make(cursor)
        rows, following = await store.show_dead(self._database, place)
        body = DeadPage(
            items=_all_shown(DeadItem, rows),
            next="_".join(following) if following else None,
        )
        return _answer(body)

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Do some of the dead again.

        A part of state `unknown` may arrive twice then. After a failure in the midst
        the same request does the rest.
        """
        await self._admit(request)
        # A JSON body is asked for by no form of another site, cookie or not.
        ids = read_replay(await read_json(request))
        outcomes = await store.replay_all(self._database, ids)
        done = sum(outcome == "replayed" for _, outcome in outcomes)
        logger.info("An operator replayed %d of %d", done, len(ids))
        items = [ReplayItem(id=i, outcome=outcome) for i, outcome in outcomes]
        return _answer(ReplayAnswer(items=items))

    async def search(self, request: web.Request) -> web.StreamResponse:
        """Find the newest messages of a phone.

        The phone is in the body, since an address ends up in logs. Twenty at most;
        none where the phone is not known.

        Raises:
            Problem: 422, it is no phone number.
        """
        await self._admit(request)
        jids = jids_of(read_search(await read_json(request)))
        if not jids:
            raise no_phone()
        rows = await store.show_messages_of(self._database, jids)
        return _answer(SearchAnswer(messages=_all_shown(MessageState, rows)))

    async def _admit(self, request: web.Request) -> None:
        """Raise AuthError for no token, or one without the scope admin."""
        require_scope(await self._identify(request), ADMIN_SCOPE)


class TraceHandler:
    """The way of a message, for an operator."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show the way of a WhatsApp message.

        Everything with its time, and no content: deliveries, why it is not answered,
        its turn, replies, each attempt to send, Evolution's receipts.

        Raises:
            AuthError: no token, or one without the scope admin.
            Problem: 404, nothing is known of the id.
        """
        require_scope(await self._identify(request), ADMIN_SCOPE)
        key_id = request.match_info["key_id"]
        trace = None
        if len(key_id) <= _MAX_KEY_ID_CHARS and "\0" not in key_id:
            trace = await load_trace(self._services.database, key_id)
        if trace is None:
            raise Problem("message_not_found", "Nothing is known of this message.")
        return web.json_response(body=wire.to_json(trace))


def read_dead_query(pairs: Pairs) -> tuple[str, str] | None:
    """Read the cursor `before`: a time and an id; None without one.

    Raises:
        Problem: 400 for what is no cursor, or stands twice.
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
    """Read the ids of a ReplayRequest, each once; raise Problem 422 for others."""
    ids = body.get("ids")
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_IDS:
        raise wire.invalid([("/ids", f"must be an array of 1 to {MAX_IDS} ids")])
    wrong = [
        (f"/ids/{place}", "must be an id")
        for place, each in enumerate(ids)
        if not isinstance(each, str) or not is_id(each)
    ]
    if wrong:
        raise wire.invalid(wrong)
    return list(dict.fromkeys(each.lower() for each in ids))


def read_search(body: dict[str, Any]) -> str:
    """Read the phone of a SearchRequest; raise Problem 422 if it is no text."""
    phone = body.get("phone")
    if not isinstance(phone, str) or not 1 <= len(phone) <= MAX_PHONE_CHARS:
        raise no_phone()
    return phone


def no_phone() -> Problem:
    """Make the 422 for what is no phone number."""
    return wire.invalid([("/phone", "must be a phone number, with its area code")])


def _all_shown(shape: type[_Shape], rows: list[Row]) -> list[_Shape]:
    return [_shown(shape, row) for row in rows]


def _shown(shape: type[_Shape], row: Row, **more: object) -> _Shape:
    """Take what is shown of a row, and what is not in it."""
    return msgspec.convert({**row._asdict(), **more}, shape)


def _webhooks(rates: WebhookRates) -> WebhookItem:
    return WebhookItem(
        first_minute=datetime.fromtimestamp(rates.first_minute * 60, UTC),
        is_capped=rates.is_capped,
        events=[EventItem(event=e, counts=counts) for e, counts in rates.events],
    )


def _work(row: Row) -> WorkItem:
    return _shown(WorkItem, row, counted_up_to=store.COUNTED_UP_TO)


def _answer(body: msgspec.Struct) -> web.Response:
    return web.json_response(body=wire.to_json(body), headers=_NOT_STORED)


async def load_trace(database: Database, message_id: str) -> TraceAnswer | None:
    """Load all that is known of a message, a person's or one that was sent.

    None if there is nothing. It takes several statements, so that a message under way
    may show its turn without the reply that has just begun.
    """
    deliveries = await database.fetch("trace_deliveries", message_id=message_id)
    messages = await database.fetch("trace_messages", message_id=message_id)
    sent = await database.fetch("find_turns_of_sent", message_id=message_id)
    if not (deliveries or messages or sent):
        return None
    turn_ids = list({row.turn_id for row in (*messages, *sent)} - {None})
    turns = await database.fetch("trace_turns", turn_ids=turn_ids)
    reply_ids = [reply_id for turn in turns for reply_id in turn.reply_ids]
    found = await database.fetch("trace_replies", message_ids=reply_ids)
    replies = {row.id: _shown(TraceReply, row) for row in found}
    sends = await database.fetch("trace_sends", turn_ids=turn_ids)

    def with_parts(turn: Row) -> TraceTurn:
        return _shown(
            TraceTurn,
            turn,
            replies=[replies[i] for i in turn.reply_ids if i in replies],
            sends=[_shown(TraceSend, s) for s in sends if s.turn_id == turn.id],
        )

    return TraceAnswer(
        message_id=message_id,
        deliveries=[_shown(TraceDelivery, row) for row in deliveries],
        messages=[_shown(TraceMessage, row) for row in messages],
        turns=[with_parts(turn) for turn in turns],
    )
