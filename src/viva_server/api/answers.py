"""What is answered to operators, to Evolution, and in a problem; no I/O."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """New work can be taken."""

    status: Literal["ready"] = "ready"


class WebhookDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The webhook's URL is right."""

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
