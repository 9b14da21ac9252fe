"""What is answered to operators, to Evolution, and in a problem; no I/O."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from viva_server.api.wire import Time


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """New work can be taken."""

    status: Literal["ready"] = "ready"


class WebhookDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a person who opens the webhook's URL."""

    status: Literal["webhook ativo"] = "webhook ativo"
    service: Literal["evolution"] = "evolution"


class WebhookStored(msgspec.Struct, frozen=True, kw_only=True):
    """The event is committed, now or by an earlier delivery (`duplicate`)."""

    status: Literal["received"] = "received"
    processed: Literal[True] = True
    event: str
    duplicate: bool


class WebhookIgnored(msgspec.Struct, frozen=True, kw_only=True):
    """The event was not stored, and must not be sent again."""

    status: Literal["received"] = "received"
    processed: Literal[False] = False
    ignored: Literal["too large"] = "too large"


class ProblemItem(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the request that is wrong.

    `pointer` is a JSON pointer (RFC 6901) into the body, or begins with /query/ or
    /headers/.
    """

    pointer: str
    message: str


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """A problem (RFC 9457). `retryable`: the same request may succeed later.

    `message_id` comes with a reply that failed or is in progress, `resume_url` with
    the latter.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    errors: list[ProblemItem] | UnsetType = UNSET
    message_id: str | UnsetType = UNSET
    resume_url: str | UnsetType = UNSET


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
