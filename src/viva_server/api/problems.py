"""Problems (RFC 9457): what is answered in the place of what was asked for; no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from viva_server.api.codes import FAILURE_STATUS, status_of
from viva_server.errors import VivaError

RETRY_AFTER_SECONDS = 2

RETRY_AFTER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
RETRYABLE = frozenset({408, 429, 502, 503, 504})


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
