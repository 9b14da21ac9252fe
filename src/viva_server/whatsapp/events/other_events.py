"""What is no message row: receipts, edits, deletes, calls, history, bots."""

from __future__ import annotations

from collections.abc import Callable

from viva_server.whatsapp.events import go
from viva_server.whatsapp.events.addresses import (
    clean_jid,
    put_author,
    put_chat,
    put_people,
    put_place,
)
from viva_server.whatsapp.events.content import put_content, put_protocol, put_text
from viva_server.whatsapp.events.json_values import clean_text
from viva_server.whatsapp.events.messages import MAX_ITEMS, judge, put_id, voted
from viva_server.whatsapp.events.normal_form import NormalForm
from viva_server.whatsapp.events.shapes import (
    Object,
    as_epoch,
    as_int,
    as_list,
    as_object,
    as_objects,
    pick,
    pick_text,
)


def put_statuses(form: NormalForm, body: Object) -> None:
    """Put receipts; a row without envelope is one too."""
    rows = as_objects(body["data"]) if "data" in body else [body]
    _put_each(form, rows, _put_status)


def put_deletes(form: NormalForm, body: Object) -> None:
    """Put deletes: a bare key, a key with status, or a full row."""
    _put_each(form, as_objects(body.get("data")), _put_delete)


def put_protocols(form: NormalForm, body: Object) -> None:
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


def put_call(form: NormalForm, body: Object) -> None:
    """Put who calls and the call's state."""
    for row in as_objects(body.get("data"))[:1]:
        if chat := clean_jid(row.get("chatId")):
            put_chat(form, chat)
        names = ("from", "callerPn", "From", "CallCreator", "CallCreatorAlt")
        jids = [clean_jid(row.get(name)) for name in names]
        put_author(form, [jid for jid in jids if jid])
        _put_state(form, go.STATES.get(form["event"]) or row.get("status"))
        _put_time(form, pick(row, "date", "Timestamp"))


def put_connection(form: NormalForm, body: Object) -> None:
    """Put the connection's state."""
    data = as_object(body.get("data"))
    _put_state(form, go.STATES.get(form["event"]) or data.get("state"))


def put_history(form: NormalForm, body: Object) -> None:
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


def put_bot(form: NormalForm, body: Object, now: float) -> None:
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


def put_subject(form: NormalForm, body: Object) -> None:
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
    put_place(form, go.message_key(row))
    ids = [name for name in as_list(row["MessageIDs"]) if isinstance(name, str)]
    put_id(form, next(iter(ids), None))
    if len(ids) > 1:
        form["count"] = len(ids)
    _put_time(form, row.get("Timestamp"))


def put_go_state(form: NormalForm, body: Object) -> None:
    """Put a receipt's state, which evolution-go sends beside `data`."""
    data = as_object(body.get("data"))
    if state := pick_text(body, "state") or pick_text(data, "Type"):
        form["status_value"] = clean_text(state.upper()[:64])


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
