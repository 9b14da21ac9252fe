"""The key by which two deliveries of one event are recognised as the same."""

from __future__ import annotations

import hashlib

import msgspec

from viva_server.whatsapp.events.json_values import Object, as_int, as_object
from viva_server.whatsapp.events.table import NormalForm

# What differs between deliveries of one event: the instance's and the global webhook
# have another destination and, up to 2.1.0, another apikey.
_CHANGING = frozenset(
    {
        "apikey",
        "api_key",
        "date_time",
        "destination",
        "instanceToken",
        "sender",
        "server_url",
    }
)


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
