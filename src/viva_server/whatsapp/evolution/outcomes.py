"""What an answer to sendText means for the message; no I/O.

Evolution has no idempotency key before 2.4, and a request that timed out was often
carried out (#1874, #1735): only what surely did nothing may be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from viva_server.errors import EvolutionError
from viva_server.whatsapp.events.json_values import (
    as_list,
    as_object,
    clean_text,
    pick_text,
)
from viva_server.whatsapp.evolution.dialects import said
from viva_server.whatsapp.evolution.rest import Answer


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one send.

    `sent`: Evolution took it, as `message_id`. `retry`: nothing was done, the same may
    succeed later, not before `retry_after` seconds where that is given. `unknown`: it
    may have been sent; the `send.message` event settles it. `dead`: never, as it is.
    `reason` is a short word for logs and people, never a text of the other side.
    """

    kind: Literal["sent", "retry", "unknown", "dead"]
    message_id: str | None = None
    reason: str = ""
    retry_after: float | None = None


_RETRY_REASONS: Final = {429: "rate_limited", 502: "bad_gateway", 503: "unavailable"}
_DEAD_REASONS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
}
_MAX_ID: Final = 255


def outcome_of_failure(error: EvolutionError) -> SendOutcome:
    """Judge a send without an answer."""
    if error.outcome_unknown:
        return SendOutcome("unknown", reason=error.reason)
    if error.reason == "no_connection":
        return SendOutcome("retry", reason=error.reason)
    return SendOutcome("dead", reason=error.reason)


def outcome_of_answer(answer: Answer) -> SendOutcome:
    """Judge the answer to a send."""
    if answer.is_ok:
        return _accepted(answer)
    status = answer.status
    text = said(answer)
    if "LICENSE_REQUIRED" in text:
        return SendOutcome("dead", reason="license_required")
    if reason := _RETRY_REASONS.get(status):
        return SendOutcome("retry", reason=reason, retry_after=answer.retry_after)
    if status >= 500 or status == 408:
        return SendOutcome("unknown", reason="server_error")
    return _refused(answer, text)


def _accepted(answer: Answer) -> SendOutcome:
    """Believe a success only with a message's id: a proxy may answer 200 too."""
    body = as_object(answer.body)
    # evolution-go: {"message": "success", "data": {"Info": {"ID": …}}}
    info = as_object(as_object(body.get("data")).get("Info"))
    found = pick_text(as_object(body.get("key")), "id") or pick_text(info, "ID", "Id")
    if found is None:
        return SendOutcome("unknown", reason="strange_answer")
    return SendOutcome("sent", clean_text(found.strip()[:_MAX_ID]))


def _refused(answer: Answer, text: str) -> SendOutcome:
    status = answer.status
    if status == 400 and _is_absent(answer):
        return SendOutcome("dead", reason="not_on_whatsapp")
    # Not checks of the input: WhatsApp's socket failed while it was sending.
    if status == 400 and ("Connection Closed" in text or "Timed Out" in text):
        return SendOutcome("unknown", reason="send_failed")
    if status == 404 and "does not exist" in text:
        return SendOutcome("dead", reason="no_such_instance")
    if status < 400:
        return SendOutcome("dead", reason="redirect")
    return SendOutcome("dead", reason=_DEAD_REASONS.get(status, "refused"))


def _is_absent(answer: Answer) -> bool:
    """Return whether the number check says that the person is not on WhatsApp."""
    response = as_object(as_object(answer.body).get("response"))
    entries = as_list(response.get("message"))
    return any(as_object(entry).get("exists") is False for entry in entries)
