"""One accepted webhook, as the inbox stores it: its normal form, key and safe body."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import msgspec

from viva_server.ids import new_id
from viva_server.whatsapp.events.json_values import Object
from viva_server.whatsapp.events.parse import parse_webhook, plain_tail
from viva_server.whatsapp.events.table import AWAITED, NormalForm
from viva_server.whatsapp.ingress.keys import dedupe_key
from viva_server.whatsapp.ingress.redact import redact
from viva_server.whatsapp.ingress.storable import hide, storable

# Those that tell versions and events apart; none of them carries a credential.
KEPT_HEADERS = (
    "Content-Type",
    "User-Agent",
    "X-Event-Type",
    "X-Instance-ID",
    "X-Instance-Name",
    "X-Timestamp",
)
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
        rest = {"removed": "body", "size": len(raw)}
        digest = hashlib.sha256(raw).hexdigest()
        return replace(self, body_json=_json({**rest, "sha256": digest}))


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


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
