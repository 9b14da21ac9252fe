"""Any body of any Evolution version becomes one normal form; no I/O, never raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from viva_server.whatsapp.events import go
from viva_server.whatsapp.events.addresses import clean_jid
from viva_server.whatsapp.events.finding import Found, find_event, find_instance
from viva_server.whatsapp.events.messages import put_rows
from viva_server.whatsapp.events.normal_form import NormalForm
from viva_server.whatsapp.events.other_events import (
    put_bot,
    put_call,
    put_connection,
    put_deletes,
    put_go_state,
    put_history,
    put_protocols,
    put_statuses,
    put_subject,
)
from viva_server.whatsapp.events.shapes import Object, as_flag, as_object, as_objects


def parse_webhook(
    tail: str, query: str, headers: Mapping[str, str], body: Object, now: float
) -> NormalForm:
    """Return the normal form of a delivery.

    Args:
        tail: the path after the webhook's base, decoded or not.
        query: the query string, undecoded.
        headers: looked up by `X-Event-Type` and `X-Instance-Name`.
        body: any JSON object.
        now: epoch seconds, by which an inbound message is judged stale.
    """
    found = find_event(tail, query, headers, body)
    form = NormalForm(event=found.name, kind=found.kind, answer=False)
    _put_found(form, found)
    if instance := find_instance(headers, body):
        form["instance"] = instance
    if reader := _READERS.get(found.kind):
        reader(form, body)
    elif found.kind == "bot":
        put_bot(form, body, now)
    else:
        _put_messages(form, body, now)
    return form


def _put_found(form: NormalForm, found: Found) -> None:
    if not found.known:
        form["unknown_event"] = True
    if found.inferred:
        form["inferred_event"] = True


def _put_messages(form: NormalForm, body: Object, now: float) -> None:
    data = as_object(body.get("data"))
    own = clean_jid(body.get("sender"))
    if "Info" not in data:
        put_rows(form, as_objects(body.get("data")), own, now)
        return
    info = as_object(data["Info"])
    if as_flag(info.get("IsFromMe")):
        own = clean_jid(info.get("Sender"))
    put_rows(form, [go.message_row(data)], own, now)


def _put_statuses(form: NormalForm, body: Object) -> None:
    put_statuses(form, body)
    if form["event"] == "Receipt":
        put_go_state(form, body)


_READERS: dict[str, Callable[[NormalForm, Object], None]] = {
    "status": _put_statuses,
    "delete": put_deletes,
    "protocol": put_protocols,
    "call": put_call,
    "connection": put_connection,
    "history": put_history,
    "history_done": put_history,
    "presence": put_subject,
    "groups": put_subject,
    "contacts": put_subject,
    "chats": put_subject,
    "labels": put_subject,
    "system": put_subject,
}
