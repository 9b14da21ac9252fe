"""A webhook's body becomes a delivery: decoded, judged, made storable, with its key."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import msgspec

from viva_server.errors import VivaError
from viva_server.values import new_id
from viva_server.whatsapp.events.json_values import (
    NotJsonObjectError,
    Object,
    as_int,
    as_object,
    decode_object,
)
from viva_server.whatsapp.events.parse import parse_webhook, plain_tail
from viva_server.whatsapp.events.table import AWAITED, NormalForm
from viva_server.whatsapp.ingress.secrets import hide, judge_body, redact, storable


class WrongSecretError(VivaError):
    """The body was to bring the secret, and does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """What a request brings beside its body, and what the settings say of it.

    `tail` is decoded, `query` is not; both may hold the secret. `asked` are the
    secrets of which the body's `apikey` must be one, if there are any; `hidden` are
    taken out of all that is stored.
    """

    tail: str = field(repr=False)
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    trusted: bool
    asked: tuple[str, ...] = field(default=(), repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)


def read_delivery(raw: bytes | bytearray, request: WebhookRequest) -> Delivery:
    """Make a delivery of a body; as long as the body has values.

    Raises:
        WrongSecretError: no JSON object with the secret that is asked for.
        NotJsonObjectError: no JSON object.
    """
    try:
        body = decode_object(raw)
    except NotJsonObjectError:
        if request.asked:
            raise WrongSecretError from None
        raise
    if request.asked and not judge_body(request.asked, body):
        raise WrongSecretError
    return make_delivery(
        request.tail,
        request.query,
        request.headers,
        body,
        trusted=request.trusted,
        secrets=request.hidden,
    )


# Those that tell versions and events apart; none of them carries a credential.
KEPT_HEADERS = (
    "Content-Type", "User-Agent", "X-Event-Type", "X-Instance-ID", "X-Instance-Name",
    "X-Timestamp",
)  # fmt: skip
_MAX_HEADER = 255
_MAX_TAIL = 1000
# Above, a body (of a history sync, as a rule) leaves its normal form and a hash: the
# webhooks that share its commit wait for as long as PostgreSQL reads it.
MAX_STORED_BYTES = 512 * 2**10
_MAX_FORM_BYTES = 2**20
_CUT_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook without secrets, ready to be stored; texts of JSON are encoded."""

    id: str
    dedupe_key: str
    form: NormalForm
    tail: str
    trusted: bool
    headers_json: str
    form_json: str
    body_json: str = field(repr=False)

    @property
    def is_awaited(self) -> bool:
        """Whether Evolution's queue stands still until this event is answered."""
        return self.form["event"] in AWAITED

    @property
    def size(self) -> int:
        """About how many bytes the delivery holds in memory."""
        return len(self.body_json) + len(self.form_json) + len(self.headers_json)

    def without_body(self) -> Delivery:
        """Return the same delivery with a hash in the place of its body."""
        raw = self.body_json.encode()
        digest = hashlib.sha256(raw).hexdigest()
        left = {"removed": "body", "size": len(raw), "sha256": digest}
        return replace(self, body_json=msgspec.json.encode(left).decode())


def make_delivery(
    tail: str,
    query: str,
    headers: Mapping[str, str],
    body: Object,
    *,
    trusted: bool,
    secrets: tuple[str, ...] = (),
    now: float | None = None,
) -> Delivery:
    """Read a body and make it storable; no I/O, but as long as the body is large.

    Args:
        tail: the path after the webhook's base, decoded.
        query: undecoded; it is never stored, since the secret may be in it.
        headers: of the request; those that name versions and events are stored.
        body: any JSON object.
        trusted: whether the delivery may be answered.
        secrets: taken out of all that is stored, wherever they stand.
        now: epoch seconds; the clock's by default.
    """
    moment = time.time() if now is None else now
    parsed = parse_webhook(tail, query, headers, body, moment)
    stored, body_json = storable(redact(body, parsed["event"]), secrets)
    form, form_json = storable(_bounded(parsed), secrets)
    kept = tuple(headers.get(name, "")[:_MAX_HEADER] for name in KEPT_HEADERS)
    delivery = Delivery(
        id=new_id(),
        dedupe_key=dedupe_key(form, stored).hex(),
        form=form,
        tail=_stored_tail(tail, secrets),
        trusted=trusted,
        headers_json=_headers_json(kept, secrets),
        form_json=form_json,
        body_json=body_json,
    )
    is_large = len(delivery.body_json) > MAX_STORED_BYTES
    return delivery.without_body() if is_large else delivery


# A sender's deliveries have the same headers, and one of a few paths.
@lru_cache(maxsize=64)
def _headers_json(kept: tuple[str, ...], secrets: tuple[str, ...]) -> str:
    named = zip(KEPT_HEADERS, kept, strict=True)
    return storable({name: value for name, value in named if value}, secrets)[1]


@lru_cache(maxsize=64)
def _stored_tail(tail: str, secrets: tuple[str, ...]) -> str:
    return hide(plain_tail(tail)[:_MAX_TAIL], secrets)


def _bounded(form: NormalForm) -> NormalForm:
    """Cut the texts of a batch that is no person's: a thousand of 64 KiB each."""
    items = form.get("items", ())
    if sum(len(item.get("text", "")) for item in items) <= _MAX_FORM_BYTES:
        return form
    for item in items:
        if "text" in item:
            item["text"] = item["text"][:_CUT_CHARS]
    form["texts"] = [item["text"] for item in items if "text" in item]
    return form


# What differs between deliveries of one event: the instance's and the global webhook
# have another destination and, up to 2.1.0, another apikey.
_CHANGING = frozenset({
    "apikey", "api_key", "date_time", "destination", "instanceToken", "sender",
    "server_url",
})  # fmt: skip


def dedupe_key(form: NormalForm, stored: Object) -> bytes:
    """Return the SHA-256 that is the same for each delivery of one event.

    `stored` is the redacted body, which is bounded in depth and keeps a hash of what
    was taken out.
    """
    parts = _id_parts(form, stored)
    if parts is None:
        rest = {name: v for name, v in stored.items() if name not in _CHANGING}
        parts = ("body", rest)
    return _digest((form.get("instance", ""), form["event"], *parts))


def _id_parts(form: NormalForm, stored: Object) -> tuple[object, ...] | None:
    event = form["event"]
    data = as_object(stored.get("data"))
    if event in {"messages.upsert", "send.message"}:
        return _message_parts(form)
    if "message_id" not in form or isinstance(stored.get("data"), list):
        return None
    if event == "messages.update":
        row = data or stored
        changes = [row.get("message"), row.get("pollUpdates")]
        return (form["message_id"], form.get("status_value"), _digest(changes))
    if event == "messages.edited":
        return (form["message_id"], as_int(data.get("timestampMs")))
    return None


def _message_parts(form: NormalForm) -> tuple[object, ...] | None:
    items = form.get("items") or [form]
    ids = [item.get("message_id") for item in items]
    if None in ids:
        return None
    # A message that could not be decrypted comes again, under its id, with its text.
    return (*ids, "empty") if form["kind"] == "empty" else tuple(ids)


def _digest(value: object) -> bytes:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest()
