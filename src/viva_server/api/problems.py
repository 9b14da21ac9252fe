"""Errors as RFC 9457 problems: the one place that maps exceptions to answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError
from msgspec import UNSET, UnsetType

from viva_server.api.codes import FAILURE_STATUS, status_of
from viva_server.api.wire import WireError, not_found
from viva_server.auth import ScopeError
from viva_server.errors import (
    AuthError,
    FencedError,
    KeyReusedError,
    NotFoundError,
    NotNewestError,
    OverloadedError,
    ReplyPendingError,
    ResponderError,
    RowError,
    StoreError,
    TooManyRepliesError,
    VivaError,
)

TYPE_PREFIX = "urn:viva:problem:"
RETRY_AFTER_SECONDS = 2

_RETRY_AFTER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_KEY_REUSED = "This Idempotency-Key belongs to another body."
RETRYABLE = frozenset({408, 429, 502, 503, 504})
_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")
_CODES = {
    status_of(code): code
    for code in (
        "bad_request",
        "unauthorized",
        "forbidden",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "too_large",
        "unsupported_media_type",
        "expectation_failed",
        "internal_error",
        "unavailable",
    )
}
"""What aiohttp and a host's handlers mean by a bare status."""


class Problem(VivaError):  # noqa: N818 - RFC 9457's word
    """An answer of status 400 or above.

    `code` is the word for programs and has its status in `viva_server.api.codes`; for
    a word from elsewhere give `status`. `detail` and `errors` (pairs of pointer and
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


def to_problem(error: BaseException) -> Problem | None:
    """Return the problem that `error` is; None if nobody expected it."""
    match error:
        case Problem():
            return error
        case WireError():
            return Problem(error.code, error.detail, errors=error.errors)
        case AuthError():
            return _auth_problem(error)
        case NotFoundError():
            return to_problem(not_found(error.kind))
        case NotNewestError():
            return Problem("not_newest", str(error))
        case KeyReusedError():
            return Problem("idempotency_key_reused", _KEY_REUSED)
        case TooManyRepliesError():
            detail = "You have too many replies under way."
            return Problem("too_many_replies", detail, headers=_RETRY_AFTER)
        case OverloadedError() | FencedError():
            return unavailable()
        case RowError():
            return Problem("not_storable", "The database refuses what was sent.")
        case StoreError():
            return unavailable()
        case ReplyPendingError():
            return reply_pending(error.message_id)
        case ResponderError():
            return reply_failed(
                error.code, "The model gave no reply.", retryable=error.retryable
            )
        case RequestPayloadError():
            return Problem("bad_body", "The body broke off.", closes=True)
        case web.HTTPException():
            return _http_problem(error)
    return None


def unavailable(
    detail: str = "The server cannot do this right now.", *, closes: bool = False
) -> Problem:
    """Make the 503 for what may work again in a moment."""
    return Problem("unavailable", detail, headers=_RETRY_AFTER, closes=closes)


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


def problem_response(problem: Problem, request_id: str) -> web.Response:
    """Return the answer, as application/problem+json."""
    body = json.dumps(_members(problem, request_id), separators=(",", ":"))
    response = web.Response(
        status=problem.status,
        body=body.encode(),  # json.dumps escapes all that UTF-8 cannot hold
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **problem.headers},
    )
    if problem.closes:
        response.force_close()
    return response


def _members(problem: Problem, request_id: str) -> dict[str, Any]:
    members = {
        **problem.extra,
        "type": TYPE_PREFIX + problem.code,
        "title": _title(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retryable,
    }
    if problem.errors:
        members["errors"] = [
            {"pointer": pointer, "message": message}
            for pointer, message in problem.errors
        ]
    return members


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _auth_problem(error: AuthError) -> Problem:
    if isinstance(error, ScopeError):
        # RFC 6750 § 3.1: a good token without the scope is 403, not 401.
        challenge = f'Bearer error="insufficient_scope", scope="{error.scope}"'
        detail = "The token does not carry the scope that this needs."
        headers = {"WWW-Authenticate": challenge}
        return Problem("insufficient_scope", detail, headers=headers)
    detail = "A valid Bearer token is needed."
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem("unauthorized", detail, headers=headers)


def _http_problem(error: web.HTTPException) -> Problem | None:
    if error.status < 400:
        return None
    kept = {
        name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers
    }
    code = _CODES.get(error.status, f"http_{error.status}")
    detail = f"{_title(error.status)}."
    return Problem(
        code, detail, status=error.status, headers=kept, closes=error.status == 413
    )
