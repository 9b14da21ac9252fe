"""What comes beside a body, checked: the query and Idempotency-Key; no I/O.

The pointers of errors begin with /query/ and /headers/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from viva_server.api.wire import Id, Seq, WireError, optional_session_id

MAX_KEY_CHARS = 255
MAX_PAGE = 1_000_000
MAX_MESSAGES = 250
MAX_PAGE_SIZE = 100
MAX_SEQ = 2**31 - 1

Pairs = Iterable[tuple[str, str]]
"""Names and values in the order in which they came, such as `request.query.items()`."""

_NUMBER = re.compile(r"(-?)0*([0-9]+)")


class SnapshotQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of which session a snapshot shows."""

    session_id: Annotated[
        Id | None, Meta(description="Which session; by default the newest.")
    ] = None
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_MESSAGES,
            description="How many messages at most; a number beyond becomes the limit.",
        ),
    ] = 120
    before: Annotated[
        Seq | None, Meta(description="Only messages before this `seq`.")
    ] = None


class SessionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a person's sessions is wanted."""

    page: Annotated[
        int, Meta(ge=1, le=MAX_PAGE, description="Which page; clamped and echoed.")
    ] = 1
    page_size: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_PAGE_SIZE,
            description="How many sessions a page has; clamped and echoed.",
        ),
    ] = 20

    @property
    def offset(self) -> int:
        """How many sessions come before this page; it fits 32 bits."""
        return (self.page - 1) * self.page_size


class ResumeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream goes on, for a client that cannot send headers."""

    after: Annotated[
        str | None,
        Meta(description="The same as `Last-Event-ID`, which goes before it."),
    ] = None


class ResumeHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream goes on."""

    last_event_id: Annotated[
        str | None, Meta(description="The `id` of the last event that was seen.")
    ] = msgspec.field(name="Last-Event-ID", default=None)


class ChatHeaders(ResumeHeaders, frozen=True, kw_only=True):
    """What makes a question one that was asked before."""

    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS, pattern="^[ -~]+$")]
        | None,
        Meta(
            description="The same key and body of one person give the same reply and "
            "one model call, however many requests come at once."
        ),
    ] = msgspec.field(name="Idempotency-Key", default=None)


class PathParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand in a path."""

    message_id: Annotated[Id, Meta(description="A reply of the person.")]
    session_id: Annotated[Id, Meta(description="A session of the person.")]
    key_id: Annotated[
        str,
        Meta(
            description="WhatsApp's id of a person's message, or of one that was sent."
        ),
    ]
    event: Annotated[
        str,
        Meta(
            description="The event's name as Evolution writes it in a path; anything "
            "is taken, more segments among it."
        ),
    ]


_DEFAULTS = SnapshotQuery()
_FIRST = SessionsQuery()


def read_snapshot_query(pairs: Pairs) -> SnapshotQuery:
    """Read `session_id`, `limit` (1…250 clamped, else 120) and `before` (a `seq`).

    Raises:
        WireError: 400 for what is no number or stands twice; 404 for no id.
    """
    values = single_values(pairs)
    before = _number(values, "before")
    if before is not None and before < 1:
        raise bad_query("before", "must be 1 or more")
    return SnapshotQuery(
        session_id=optional_session_id(values.get("session_id"), "/query/session_id"),
        limit=_clamped(_number(values, "limit"), _DEFAULTS.limit, MAX_MESSAGES),
        before=None if before is None else min(before, MAX_SEQ),
    )


def read_sessions_query(pairs: Pairs) -> SessionsQuery:
    """Read `page` (from 1) and `page_size` (1…100, else 20), both clamped.

    Raises:
        WireError: 400 for what is no number or stands twice.
    """
    values = single_values(pairs)
    return SessionsQuery(
        page=_clamped(_number(values, "page"), _FIRST.page, MAX_PAGE),
        page_size=_clamped(
            _number(values, "page_size"), _FIRST.page_size, MAX_PAGE_SIZE
        ),
    )


def single_values(pairs: Pairs) -> dict[str, str]:
    """Return a query's parameters; raise WireError 400 if one stands twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise bad_query(name, "stands more than once")
        values[name] = value
    return values


def read_idempotency_key(values: Sequence[str]) -> str | None:
    """Read all values of the header Idempotency-Key; None without one.

    Raises:
        WireError: 400 unless it is one value of 1 to 255 printable ASCII characters.
    """
    if not values:
        return None
    key = values[0]
    if len(values) > 1:
        raise _bad_key("stands more than once")
    if not (1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise _bad_key(f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return key


def _number(values: dict[str, str], name: str) -> int | None:
    if (text := values.get(name)) is None:
        return None
    if (match := _NUMBER.fullmatch(text)) is None:
        raise bad_query(name, "must be a whole number")
    # int() refuses texts above 4300 digits; 12 are more than any limit here.
    return int(match[1] + match[2][:12])


def _clamped(value: int | None, default: int, most: int) -> int:
    return default if value is None else max(1, min(value, most))


def bad_query(name: str, message: str) -> WireError:
    """Make the 400 for a parameter that cannot be taken."""
    errors = [(f"/query/{name[:64]}", message)]
    detail = "The query has a parameter that cannot be taken."
    return WireError("bad_query", detail, errors)


def _bad_key(message: str) -> WireError:
    errors = [("/headers/Idempotency-Key", message)]
    detail = "The header Idempotency-Key cannot be taken."
    return WireError("bad_idempotency_key", detail, errors)
