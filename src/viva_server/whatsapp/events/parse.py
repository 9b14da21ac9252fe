"""Any body of any Evolution version becomes one normal form; no I/O, never raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from viva_server.whatsapp.events.addresses import (
    GROUP,
    clean_jid,
    put_author,
    put_chat,
    put_people,
    put_place,
)
from viva_server.whatsapp.events.content import (
    MAX_ITEMS,
    judge,
    put_content,
    put_id,
    put_protocol,
    put_rows,
    put_text,
    voted,
)
from viva_server.whatsapp.events.json_values import (
    Object,
    as_epoch,
    as_flag,
    as_int,
    as_list,
    as_object,
    as_objects,
    as_text,
    clean_text,
    pick,
    pick_text,
)
from viva_server.whatsapp.events.table import (
    GO_KINDS,
    OTHER_KINDS,
    NormalForm,
    find_in_table,
)


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
    if not found.known:
        form["unknown_event"] = True
    if found.inferred:
        form["inferred_event"] = True
    if instance := find_instance(headers, body):
        form["instance"] = instance
    if reader := _READERS.get(found.kind):
        reader(form, body)
    elif found.kind == "bot":
        _put_bot(form, body, now)
    else:
        _put_messages(form, body, now)
    return form


def _put_messages(form: NormalForm, body: Object, now: float) -> None:
    data = as_object(body.get("data"))
    own = clean_jid(body.get("sender"))
    if "Info" not in data:
        put_rows(form, as_objects(body.get("data")), own, now)
        return
    info = as_object(data["Info"])
    if as_flag(info.get("IsFromMe")):
        own = clean_jid(info.get("Sender"))
    put_rows(form, [_go_message_row(data)], own, now)


_MAX_NAME = 255


class Found(NamedTuple):
    """The event's name, how its data is read, and how sure that is."""

    name: str
    kind: str
    known: bool = True
    inferred: bool = False


def find_event(
    tail: str, query: str, headers: Mapping[str, str], body: Object
) -> Found:
    """Find the event; `tail` is the path after the base, `query` is undecoded.

    A name that the table does not know is kept as it came, and said so.
    """
    if name := as_text(body.get("event")) or as_text(headers.get("X-Event-Type")):
        return _named(name.strip()[:_MAX_NAME])
    return (
        _of_segment(unquote(tail))
        or _of_query(query)
        or _of_shape(body)
        or Found(plain_tail(tail)[:_MAX_NAME] or "unknown", "system", known=False)
    )


@lru_cache(maxsize=256)
def _named(name: str) -> Found:
    name = clean_text(name)
    if kind := GO_KINDS.get(name) or OTHER_KINDS.get(name):
        return Found(name, kind)
    if event := find_in_table(name):
        return Found(name, event.kind)
    return Found(name, "system", known=False)


def _of_segment(path: str) -> Found | None:
    segment = path.rstrip("/").rpartition("/")[2]
    event = find_in_table(segment.strip())
    return Found(event.name, event.kind) if event else None


def _of_query(query: str) -> Found | None:
    """Find the tail that Evolution appended to a URL that ends in a query.

    Only names of the table: the rest of a value may be part of a secret.
    """
    for field in query.split("&"):
        value = unquote(field.partition("=")[2] or field)
        if "/" in value and (found := _of_segment(value)):
            return found
    return None


def _of_shape(body: Object) -> Found | None:
    if "keyId" in body and "status" in body and "data" not in body:
        return Found("messages.update", "status", inferred=True)
    if isinstance(body.get("inputs"), dict) and "query" in body:
        return Found("evolution.bot", "bot", inferred=True)
    if "chatInput" in body and "sessionId" in body:
        return Found("n8n.bot", "bot", inferred=True)
    return None


def plain_tail(tail: str) -> str:
    """Return the path after the base, decoded, without empty segments."""
    return clean_text("/".join(word for word in unquote(tail).split("/") if word))


def find_instance(headers: Mapping[str, str], body: Object) -> str | None:
    """Return the instance's name, wherever the version puts it."""
    name = as_text(body.get("instance")) or _instance_elsewhere(headers, body)
    return clean_text(name.strip()[:_MAX_NAME]) if name else None


def _instance_elsewhere(headers: Mapping[str, str], body: Object) -> str | None:
    data = as_objects(body.get("data"))
    names = (
        body.get("instanceName"),
        as_object(body.get("inputs")).get("instanceName"),
        headers.get("X-Instance-Name"),
        data[0].get("instance") if len(data) == 1 else None,
    )
    return next(filter(None, map(as_text, names)), None)


def _put_statuses(form: NormalForm, body: Object) -> None:
    """Put receipts; a row without envelope is one too."""
    rows = as_objects(body["data"]) if "data" in body else [body]
    _put_each(form, rows, _put_status)
    if form["event"] == "Receipt":
        # evolution-go sends the state beside `data`.
        data = as_object(body.get("data"))
        if state := pick_text(body, "state") or pick_text(data, "Type"):
            form["status_value"] = clean_text(state.upper()[:64])


def _put_deletes(form: NormalForm, body: Object) -> None:
    """Put deletes: a bare key, a key with status, or a full row."""
    _put_each(form, as_objects(body.get("data")), _put_delete)


def _put_protocols(form: NormalForm, body: Object) -> None:
    """Put messages.edited, which any protocolMessage fires.

    The key is seen by whoever edited: for a contact's edit it says from_me and names
    the instance's own number. Only its id is sure.
    """
    form["kind"] = "system"
    own = clean_jid(body.get("sender"))
    for row in as_objects(body.get("data"))[:1]:
        put_protocol(form, row)
        if form["kind"] == "system":
            return
        put_id(form, form.get("target_id"))
        _put_time(form, row.get("timestampMs"))
        chat = clean_jid(as_object(row.get("key")).get("remoteJid"))
        if chat and chat != own:
            put_chat(form, chat)


def _put_call(form: NormalForm, body: Object) -> None:
    """Put who calls and the call's state."""
    for row in as_objects(body.get("data"))[:1]:
        if chat := clean_jid(row.get("chatId")):
            put_chat(form, chat)
        names = ("from", "callerPn", "From", "CallCreator", "CallCreatorAlt")
        jids = [clean_jid(row.get(name)) for name in names]
        put_author(form, [jid for jid in jids if jid])
        _put_state(form, _GO_STATES.get(form["event"]) or row.get("status"))
        _put_time(form, pick(row, "date", "Timestamp"))


def _put_connection(form: NormalForm, body: Object) -> None:
    """Put the connection's state."""
    data = as_object(body.get("data"))
    _put_state(form, _GO_STATES.get(form["event"]) or data.get("state"))


def _put_history(form: NormalForm, body: Object) -> None:
    """Put how much a chunk of history, or all of it, holds."""
    data = body.get("data")
    totals = as_object(data)
    count = as_int(totals.get("messageCount"))
    if isinstance(data, list):
        count = len(data)
    if count is not None:
        form["count"] = count
    if (progress := as_int(pick({**totals, **body}, "progress"))) is not None:
        form["progress"] = progress


def _put_bot(form: NormalForm, body: Object, now: float) -> None:
    """Put a request of Evolution's own bot hooks: the HTTP answer is sent on."""
    inputs = as_object(body.get("inputs"))
    source = inputs or body
    put_people(form, source, None)
    put_id(form, pick_text(source, "keyId"))
    put_text(form, pick(body, "query", "chatInput"))
    form["kind"] = "text" if "text" in form else "empty"
    form["reply_in_response"] = "message" if inputs else "output"
    judge(form, now)
    form.pop("human_takeover", None)


_CHAT_NAMES = {
    "presence": ("id", "Chat", "From"),
    "groups": ("id", "JID"),
    "contacts": ("remoteJid", "id", "JID"),
    "chats": ("remoteJid", "id", "JID"),
    "labels": ("chatId", "JID"),
    "system": ("remoteJid",),
}


def _put_subject(form: NormalForm, body: Object) -> None:
    """Put the chat that an event without message is about, if it is one."""
    data = body.get("data")
    items = data if isinstance(data, list) else [data]
    if len(items) != 1:
        return
    row = as_object(items[0])
    jid = pick_text(row, *_CHAT_NAMES[form["kind"]])
    if isinstance(items[0], str) and form["kind"] == "chats":
        jid = items[0]
    if chat := clean_jid(jid):
        put_chat(form, chat)


def _put_each(
    form: NormalForm, rows: list[Object], put: Callable[[NormalForm, Object], None]
) -> None:
    """Put the first row; where there are more, all of them as `items`."""
    if rows:
        put(form, rows[0])
    for row in rows[:MAX_ITEMS] if len(rows) > 1 else ():
        item = NormalForm(event=form["event"], kind=form["kind"], answer=False)
        put(item, row)
        form.setdefault("items", []).append(item)


def _put_status(form: NormalForm, row: Object) -> None:
    if "MessageIDs" in row:
        _put_go_receipt(form, row)
        return
    key = as_object(row.get("key")) or row
    put_place(form, key)
    put_id(form, pick_text(row, "keyId") or pick_text(key, "id"))
    status = row.get("status")
    if isinstance(status, (str, int)) and not isinstance(status, bool):
        form["status_value"] = clean_text(str(status)[:64])
    if status == "DELETED":
        form["ambiguous"] = True
    _put_time(form, row.get("datetime"))
    _put_change(form, row)


def _put_change(form: NormalForm, row: Object) -> None:
    """Put what else messages.update brings: an edit (2.4), a vote (before 2.3.7)."""
    change = NormalForm(event="", kind="empty", answer=False)
    put_content(change, as_object(row.get("message")))
    if "text" in change or change["kind"] in {"edit", "delete"}:
        form["kind"] = "delete" if change["kind"] == "delete" else "edit"
        put_text(form, change.get("text"))
    elif as_list(row.get("pollUpdates")):
        form["kind"] = "poll_vote"
        put_text(form, voted(row.get("pollUpdates"), None))
    if form["kind"] != "status" and "message_id" in form:
        form["target_id"] = form["message_id"]


def _put_go_receipt(form: NormalForm, row: Object) -> None:
    put_place(form, _go_message_key(row))
    ids = [name for name in as_list(row["MessageIDs"]) if isinstance(name, str)]
    put_id(form, next(iter(ids), None))
    if len(ids) > 1:
        form["count"] = len(ids)
    _put_time(form, row.get("Timestamp"))


def _put_delete(form: NormalForm, row: Object) -> None:
    key = as_object(row.get("key")) or row
    put_place(form, key)
    # In a full row `id` is the database's, so the key goes first.
    put_id(form, pick_text(key, "id") or pick_text(row, "keyId"))
    if "message_id" in form:
        form["target_id"] = form["message_id"]


def _put_state(form: NormalForm, state: object) -> None:
    if isinstance(state, str) and state:
        form["state"] = clean_text(state[:64])


def _put_time(form: NormalForm, value: object) -> None:
    if (timestamp := as_epoch(value)) is not None:
        form["timestamp"] = timestamp


_GO_STATES = {
    "Connected": "open",
    "LoggedOut": "close",
    "Disconnected": "close",
    "CallOffer": "offer",
    "CallOfferNotice": "offer",
    "CallAccept": "accept",
    "CallTerminate": "terminate",
}


def _go_message_row(data: Object) -> dict[str, object]:
    """Return a Message as a row of messages.upsert."""
    info = as_object(data.get("Info"))
    return {
        "key": _go_message_key(info),
        "pushName": info.get("PushName"),
        "message": data.get("Message"),
        "messageTimestamp": info.get("Timestamp"),
        "ephemeral": as_flag(data.get("IsEphemeral")),
        "viewOnce": as_flag(data.get("IsViewOnce"))
        or as_flag(data.get("IsViewOnceV2")),
        "edited": as_flag(data.get("IsEdit")),
    }


def _go_message_key(info: Object) -> dict[str, object]:
    """Return whatsmeow's MessageSource (and ID) as a message key."""
    chat = info.get("Chat")
    from_me = as_flag(info.get("IsFromMe"))
    key = {"remoteJid": chat, "fromMe": from_me, "id": pick_text(info, "ID")}
    if as_flag(info.get("IsGroup")) or _is_shared(chat):
        return {
            **key,
            "participant": info.get("Sender"),
            "participantAlt": info.get("SenderAlt"),
        }
    alternative = info.get("RecipientAlt" if from_me else "SenderAlt")
    return {**key, "remoteJidAlt": alternative}


def _is_shared(chat: object) -> bool:
    return isinstance(chat, str) and chat.endswith((GROUP, "@broadcast", "@newsletter"))


_READERS: dict[str, Callable[[NormalForm, Object], None]] = {
    "status": _put_statuses,
    "delete": _put_deletes,
    "protocol": _put_protocols,
    "call": _put_call,
    "connection": _put_connection,
    "history": _put_history,
    "history_done": _put_history,
    "presence": _put_subject,
    "groups": _put_subject,
    "contacts": _put_subject,
    "chats": _put_subject,
    "labels": _put_subject,
    "system": _put_subject,
}
