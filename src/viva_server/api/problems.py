"""Problems (RFC 9457): what is answered in the place of what was asked for; no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from viva_server.errors import VivaError

RETRY_AFTER_SECONDS = 2
RETRY_AFTER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
RETRYABLE = frozenset({408, 429, 502, 503, 504})


class Kind(NamedTuple):
    """One kind of problem: its HTTP status, and when it comes."""

    status: int
    when: str


PROBLEMS: Final[Mapping[str, Kind]] = {
    "bad_request": Kind(400, "the request is not HTTP as RFC 9112 has it"),
    "bad_body": Kind(400, "the body broke off"),
    "bad_query": Kind(400, "a parameter is no number, too small, or stands twice"),
    "bad_idempotency_key": Kind(400, "not one value of 1 to 255 printable ASCII"),
    "empty_body": Kind(400, "a body is needed"),
    "invalid_utf8": Kind(400, "the body is not UTF-8"),
    "invalid_json": Kind(400, "the body is not JSON"),
    "not_an_object": Kind(400, "the body is JSON, but no object"),
    "duplicate_key": Kind(400, "an object of the body has a name twice"),
    "invalid_number": Kind(400, "a number is out of range"),
    "invalid_text": Kind(400, "a text has U+0000 or half of a surrogate pair"),
    "too_deep": Kind(400, "the body nests too deep"),
    "too_many_values": Kind(400, "the body has too many arrays and objects"),
    "content_encoding": Kind(400, "a webhook's body is compressed"),
    "unauthorized": Kind(401, "no valid Bearer token"),
    "wrong_secret": Kind(401, "a webhook's secret is missing or wrong"),
    "forbidden": Kind(403, "not allowed"),
    "insufficient_scope": Kind(403, "the token lacks the scope that this needs"),
    "not_found": Kind(404, "there is no such path"),
    "session_not_found": Kind(404, "unknown, or another person's"),
    "message_not_found": Kind(404, "unknown, or another person's"),
    "method_not_allowed": Kind(405, "another method; with `Allow`"),
    "request_timeout": Kind(408, "the body came too slowly"),
    "reply_in_progress": Kind(
        409, "somebody reads the session's live reply; with its URL to come back to"
    ),
    "not_newest": Kind(409, "the reply is not the newest one of its session"),
    "too_large": Kind(413, "the body has too many bytes"),
    "unsupported_media_type": Kind(
        415, "not `application/json`, not UTF-8, or compressed"
    ),
    "expectation_failed": Kind(417, "an `Expect` other than `100-continue`"),
    "validation_error": Kind(422, "members are wrong; `errors` names all of them"),
    "idempotency_key_reused": Kind(422, "the key belongs to another body"),
    "not_storable": Kind(422, "the database refuses a value, whenever it is sent"),
    "too_many_replies": Kind(429, "the person has too many live replies"),
    "internal_error": Kind(500, "a defect of the server; its log has the cause"),
    "unavailable": Kind(
        503, "the database is away, or the server is full or stopping; try again"
    ),
    "reply_pending": Kind(
        504,
        "a message without a key may be stored: do not send it again, look at "
        "`Content-Location`; 404 there from 30 s on: it is not",
    ),
    "not_ready": Kind(503, "the server is stopping, or its database is away"),
}

FAILURE_STATUS: Final = 502

FAILURES: Final[Mapping[str, str]] = {
    "upstream_timeout": "the model did not begin, or fell silent",
    "upstream_unavailable": "the model cannot be reached, or is broken",
    "upstream_rate_limited": "the model takes no more requests for now",
    "upstream_error": "the model broke off, or sent what is no reply",
    "upstream_refused": "the model refuses this server: its settings are wrong",
    "insufficient_quota": "the model's quota is used up",
    "upstream_empty": "the model ended without a word",
    "content_filter": "the model does not answer such a message",
    "length": "the model's limit was reached before there was text",
    "responder_failed": "the host's responder has a defect",
    "reply_too_slow": "no text within the cap on seconds",
    "limit": "the cap on characters leaves no text",
    "crashed": "the process died before there was text",
}
"""Why a reply failed without a character, as a problem or as the stream's last event.

A host's responder may raise words of its own.
"""


def status_of(code: str) -> int:
    """Return the status of a code; raise LookupError for one that is not listed."""
    return PROBLEMS[code].status


class Problem(VivaError):  # noqa: N818 - RFC 9457's word
    """An answer of status 400 or above.

    `code` is the word for programs and has its status in `PROBLEMS`; for a word from
    elsewhere give `status`. `detail` and `errors` (pairs of pointer and
    message) are shown to the client. `extra` are further members. `retryable` says
    whether the same request may succeed later; by default the status says it.
    `closes` ends the connection, for a request whose body was not read to its end.

    Raises:
        LookupError: the code is not listed and there is no status.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
        retryable: bool | None = None,
        closes: bool = False,
        **extra: Any,
    ) -> None:
        super().__init__(detail or code)
        self.status = status_of(code) if status is None else status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = tuple(errors)
        self.retryable = self.status in RETRYABLE if retryable is None else retryable
        self.closes = closes
        self.extra = extra


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


def unavailable(
    detail: str = "The server cannot do this right now.", *, closes: bool = False
) -> Problem:
    """Make the 503 for what may work again in a moment."""
    return Problem("unavailable", detail, headers=RETRY_AFTER, closes=closes)


def reply_pending(message_id: str, location: str | None = None) -> Problem:
    """Make the 504 for a message that may be stored: where to look, not to repeat it.

    OpenAI's libraries repeat every answer from 500 on unless `x-should-retry` says no.
    """
    headers = {"x-should-retry": "false", "Viva-Message-Id": message_id}
    extra: dict[str, Any] = {"message_id": message_id}
    if location is not None:
        headers["Content-Location"] = extra["resume_url"] = location
    detail = (
        "The message may be stored. Look for its reply; 404 from 30 s on: it is not."
    )
    return Problem("reply_pending", detail, headers=headers, retryable=False, **extra)


def reply_failed(code: str, detail: str, *, retryable: bool, **extra: Any) -> Problem:
    """Make the 502 for a reply without a character; a responder may choose `code`."""
    return Problem(code, detail, status=FAILURE_STATUS, retryable=retryable, **extra)


def unexpected() -> Problem:
    """Make the 500 for what nobody expected; it tells nothing of the error."""
    return Problem("internal_error", "The server failed. The log has the cause.")
