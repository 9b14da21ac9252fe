"""A row of messages.upsert or send.message, alone or in a batch, any version."""

from __future__ import annotations

from viva_server.whatsapp.events.addresses import (
    clean_jid,
    is_person,
    put_people,
)
from viva_server.whatsapp.events.content import (
    MEDIA,
    contexts,
    put_content,
    put_text,
)
from viva_server.whatsapp.events.json_values import clean_text
from viva_server.whatsapp.events.normal_form import NormalForm
from viva_server.whatsapp.events.shapes import (
    Object,
    as_epoch,
    as_flag,
    as_int,
    as_list,
    as_object,
    as_objects,
    pick,
    pick_text,
)

MAX_ITEMS = 1000
STALE_SECONDS = 3600

_ANSWERED = (MEDIA - {"sticker"}) | {"text", "button", "list", "location", "contact"}
_WRITTEN = MEDIA | _ANSWERED | {"poll"}
# Only these two say more than the content: the Meta channel turns both to plain text.
_BUTTON_TYPES = ("interactiveMessage", "buttonMessage")
# Events that bring back what an API client sent; the rest a person wrote.
_OWN_SENDS = ("send.message", "SendMessage")


def put_rows(form: NormalForm, rows: list[Object], own: str | None, now: float) -> None:
    """Put the one message, or a batch as `items` with what they have in common."""
    if len(rows) == 1:
        put_message(form, rows[0], own, now)
        return
    form["kind"] = "empty"
    if not rows:
        return
    for row in rows[:MAX_ITEMS]:
        item = NormalForm(event=form["event"], kind="empty", answer=False)
        put_message(item, row, own, now)
        form.setdefault("items", []).append(item)
    _put_common(form, form["items"])
    form["count"] = len(rows)


def put_message(form: NormalForm, row: Object, own: str | None, now: float) -> None:
    """Put one message and judge it."""
    key = as_object(row.get("key"))
    if form["event"] in _OWN_SENDS:
        key = {**key, "fromMe": True}
    put_people(form, key, own)
    put_id(form, pick_text(key, "id", "ID"))
    if name := pick_text(row, "pushName"):
        form["push_name"] = clean_text(name[:255])
    message = as_object(row.get("message"))
    put_content(form, message)
    _put_row(form, row, key)
    if found := contexts(row, message):
        _put_contexts(form, found, own)
    judge(form, now)


def put_id(form: NormalForm, message_id: str | None) -> None:
    """Put the message's id, cut to what an index takes."""
    if message_id:
        form["message_id"] = clean_text(message_id.strip()[:255])


def judge(form: NormalForm, now: float) -> None:
    """Say whether an inbound message is answered, an own one a person's."""
    is_private = is_person(form.get("chat")) and not form.get("self_chat")
    if form.get("from_me"):
        wrote = form["kind"] in _WRITTEN and form["event"] not in _OWN_SENDS
        if is_private and wrote:
            form["human_takeover"] = True
        return
    if "timestamp" in form and form["timestamp"] < now - STALE_SECONDS:
        form["stale"] = True
    form["answer"] = (
        is_private and form["kind"] in _ANSWERED and not form.get("stale", False)
    )


def _put_row(form: NormalForm, row: Object, key: Object) -> None:
    if (timestamp := as_epoch(row.get("messageTimestamp"))) is not None:
        form["timestamp"] = timestamp
    if form["kind"] == "text" and row.get("messageType") in _BUTTON_TYPES:
        form["kind"] = "button"
    if form["kind"] == "poll_vote" and "text" not in form:
        put_text(form, voted(row.get("pollUpdates"), form.get("sender")))
    if form["kind"] in MEDIA and row.get("base64"):
        form["has_base64"] = True
    if as_flag(key.get("isViewOnce")) or row.get("viewOnce") is True:
        form["view_once"] = True
    if row.get("ephemeral") is True:
        form["ephemeral"] = True
    if row.get("edited") is True and form["kind"] != "delete":
        form["kind"] = "edit"
    _put_chatwoot(form, row)


def voted(updates: object, voter: str | None) -> str:
    """Return the options that a voter chose, of all when the voter is not told."""
    chosen = [
        name
        for option in as_objects(updates)
        if (name := pick_text(option, "name"))
        and any(voter in {None, clean_jid(v)} for v in as_list(option.get("voters")))
    ]
    return ", ".join(chosen)


def _put_chatwoot(form: NormalForm, row: Object) -> None:
    found = as_object(row.get("chatwoot")).get("conversationId")
    if found is None:
        # The Meta channel up to 2.3.7 puts the message id here: as_int drops it.
        found = row.get("chatwootConversationId")
    if (number := as_int(found)) is not None:
        form["chatwoot_conversation"] = number


def _put_contexts(form: NormalForm, found: list[Object], own: str | None) -> None:
    for context in found:
        if "quoted_id" not in form and (
            quoted := pick_text(context, "stanzaId", "stanzaID")
        ):
            form["quoted_id"] = clean_text(quoted[:255])
        if _mentions(context, own):
            form["mentions_me"] = True
        if _is_ad(context):
            form["ad"] = True
        if (as_int(context.get("expiration")) or 0) > 0:
            form["ephemeral"] = True


def _mentions(context: Object, own: str | None) -> bool:
    jids = as_list(pick(context, "mentionedJid", "mentionedJID"))
    return own is not None and any(clean_jid(jid) == own for jid in jids)


def _is_ad(context: Object) -> bool:
    ad = as_object(context.get("externalAdReply"))
    return (
        ad.get("sourceType") == "ad"
        or pick_text(ad, "ctwaClid") is not None
        or pick_text(context, "conversionSource") is not None
        or context.get("entryPointConversionSource") == "ctwa_ad"
    )


def _put_common(form: NormalForm, items: list[NormalForm]) -> None:
    first, rest = items[0], items[1:]
    shared = {
        name: value
        for name, value in first.items()
        if all(item.get(name) == value for item in rest)
    }
    form.update(shared)  # type: ignore[typeddict-item]
    form["kind"] = "batch"
    form["answer"] = any(item["answer"] for item in items)
    form["texts"] = [item["text"] for item in items if "text" in item]
    form.pop("text", None)
