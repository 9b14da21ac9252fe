"""A message: whose it is, what it says (kind, text, media, quotes), who answers it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from viva_server.whatsapp.events.addresses import clean_jid, is_person, put_people
from viva_server.whatsapp.events.json_values import (
    Object,
    as_epoch,
    as_flag,
    as_float,
    as_int,
    as_list,
    as_object,
    as_objects,
    as_text,
    clean_text,
    pick,
    pick_text,
)
from viva_server.whatsapp.events.table import NormalForm

MEDIA = frozenset({"image", "video", "audio", "document", "sticker"})
ANSWERED = (MEDIA - {"sticker"}) | {"text", "button", "list", "location", "contact"}
WRITTEN = MEDIA | ANSWERED | {"poll"}
"""What a person writes by hand."""

MAX_ITEMS = 1000
STALE_SECONDS = 3600

# Only these two say more than the content: the Meta channel turns both to plain text.
_BUTTON_TYPES = ("interactiveMessage", "buttonMessage")
# Events that bring back what an API client sent; the rest a person wrote.
_OWN_SENDS = ("send.message", "SendMessage")


def put_rows(form: NormalForm, rows: list[Object], own: str | None, now: float) -> None:
    """Put the one message, or a batch as `items` with what they have in common."""
    if len(rows) == 1:
        _put_message(form, rows[0], own, now)
        return
    form["kind"] = "empty"
    if not rows:
        return
    for row in rows[:MAX_ITEMS]:
        item = NormalForm(event=form["event"], kind="empty", answer=False)
        _put_message(item, row, own, now)
        form.setdefault("items", []).append(item)
    _put_common(form, form["items"])
    form["count"] = len(rows)


def _put_message(form: NormalForm, row: Object, own: str | None, now: float) -> None:
    """Put one message and judge it."""
    key = as_object(row.get("key"))
    if form["event"] in _OWN_SENDS:
        key = {**key, "fromMe": True}
    put_people(form, key, own)
    put_id(form, pick_text(key, "id", "ID"))
    _put_word(form, "push_name", pick_text(row, "pushName"))
    message = as_object(row.get("message"))
    put_content(form, message)
    _put_row(form, row, key)
    if found := _contexts(row, message):
        _put_contexts(form, found, own)
    judge(form, now)


def put_id(form: NormalForm, message_id: str | None) -> None:
    """Put the message's id, cut to what an index takes."""
    _put_word(form, "message_id", message_id and message_id.strip())


def _put_word(form: NormalForm, name: _Word, value: str | None) -> None:
    if value:
        form[name] = clean_text(value[:255])


def judge(form: NormalForm, now: float) -> None:
    """Say whether an inbound message is answered, an own one a person's."""
    is_private = is_person(form.get("chat")) and not form.get("self_chat")
    if form.get("from_me"):
        wrote = form["kind"] in WRITTEN and form["event"] not in _OWN_SENDS
        if is_private and wrote:
            form["human_takeover"] = True
        return
    if "timestamp" in form and form["timestamp"] < now - STALE_SECONDS:
        form["stale"] = True
    form["answer"] = (
        is_private and form["kind"] in ANSWERED and not form.get("stale", False)
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
        if "quoted_id" not in form:
            _put_word(form, "quoted_id", pick_text(context, "stanzaId", "stanzaID"))
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


_WRAPPERS = dict.fromkeys((
    "ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2",
    "viewOnceMessageV2Extension", "documentWithCaptionMessage", "editedMessage",
    "deviceSentMessage", "associatedChildMessage", "groupMentionedMessage",
    "groupStatusMessage", "groupStatusMessageV2", "lottieStickerMessage",
    "botInvokeMessage",
))  # fmt: skip
_MAX_WRAPPERS = 5
MAX_TEXT = 65_536  # WhatsApp's own limit

_Reader = Callable[[NormalForm, Object], None]
_Word = Literal[
    "choice_id", "filename", "message_id", "mimetype", "push_name", "quoted_id",
    "target_id",
]  # fmt: skip


class _Unwrapped(NamedTuple):
    """A message without its wrappers, and their names."""

    message: Object
    wrappers: frozenset[str]


def _unwrap(message: Object) -> _Unwrapped:
    """Take the wrappers off; Evolution itself unwraps documents only."""
    wrappers: set[str] = set()
    for _ in range(_MAX_WRAPPERS):
        name = _first_object(_WRAPPERS, message)
        if name is None:
            break
        wrappers.add(name)
        inner = as_object(message[name])
        # A bare editedMessage (messages.edited) holds the content without `.message`.
        message = as_object(inner["message"]) if "message" in inner else inner
    return _Unwrapped(message, frozenset(wrappers))


def _first_object(names: Mapping[str, object], message: Object) -> str | None:
    """Return the first of the names under which an object stands."""
    if names.keys().isdisjoint(message):  # so it is with a plain text
        return None
    return next((n for n in names if isinstance(message.get(n), dict)), None)


def put_content(form: NormalForm, message: Object, *, nested: bool = False) -> None:
    """Put kind, text and all that the content tells; `empty` when nothing is read.

    `nested` content is that of an edit: another protocolMessage in it is not read.
    """
    content, wrappers = _unwrap(message)
    value: Object = {}
    name = _first_object(_NESTED_READERS if nested else _READERS, content)
    if name is not None:
        value = as_object(content[name])
        form["kind"], read = _READERS[name]
        read(form, value)
    else:
        put_text(form, content.get("conversation"))
        form["kind"] = "text" if "text" in form else _kind_without_content(content)
    _put_extras(form, (message, content), value)
    if wrappers:
        _put_wrappers(form, wrappers)


def _put_wrappers(form: NormalForm, wrappers: frozenset[str]) -> None:
    if "editedMessage" in wrappers and form["kind"] not in {"delete", "system"}:
        form["kind"] = "edit"
    if any(name.startswith("viewOnce") for name in wrappers):
        form["view_once"] = True
    if "ephemeralMessage" in wrappers:
        form["ephemeral"] = True


def put_text(form: NormalForm, value: object) -> None:
    """Put the text when there is one."""
    if text := as_text(value):
        form["text"] = clean_text(text[:MAX_TEXT])


def put_protocol(form: NormalForm, value: Object) -> None:
    """Read a protocolMessage: an edit, a delete, or something without content."""
    edited = as_object(value.get("editedMessage"))
    kind = value.get("type")
    if kind in ("REVOKE", 0) and not isinstance(kind, bool):
        form["kind"] = "delete"
    elif edited or kind in ("MESSAGE_EDIT", 14):
        put_content(form, edited, nested=True)
        form["kind"] = "edit"
    else:
        form["kind"] = "system"
        return
    _put_target(form, value.get("key"))


def _put_extras(form: NormalForm, around: tuple[Object, ...], content: Object) -> None:
    """Put what lies beside the content: base64, a transcript, a signed URL.

    1.x keeps a wrapper and puts these beside it, so both levels are looked at.
    """
    if "text" not in form:
        _put_speech(form, around)
    if form["kind"] in MEDIA:
        form["has_base64"] = any(m.get("base64") for m in around)
        if any(pick_text(m, "mediaUrl") for m in around):
            form["media_url"] = True
    if as_flag(content.get("viewOnce")):
        form["view_once"] = True


def _put_speech(form: NormalForm, around: tuple[Object, ...]) -> None:
    speech = next(filter(None, (pick_text(m, "speechToText") for m in around)), None)
    if speech:
        put_text(form, speech.removeprefix("[audio] "))


def _contexts(row: Object, message: Object) -> list[Object]:
    """Return the contextInfo objects: the row's, the content's, the message's."""
    content = _unwrap(message).message
    candidates = [row, content, message]
    if not _READERS.keys().isdisjoint(content):
        inner = [as_object(content[name]) for name in _READERS if name in content]
        candidates = [row, *inner, content, message]
    found = [as_object(source.get("contextInfo")) for source in candidates]
    return [context for context in found if context]


def _kind_without_content(content: Object) -> str:
    keys = content.keys() - {"messageContextInfo", "conversation"}
    if keys and all(key.endswith("KeyDistributionMessage") for key in keys):
        return "system"
    return "empty"


def _read_text(form: NormalForm, value: Object) -> None:
    put_text(form, value.get("text"))
    if "text" not in form:
        form["kind"] = "empty"


def _read_media(form: NormalForm, value: Object) -> None:
    put_text(form, value.get("caption"))
    _put_word(form, "mimetype", pick_text(value, "mimetype", "mime_type"))
    _put_word(form, "filename", pick_text(value, "fileName", "filename", "title"))
    if (seconds := as_int(value.get("seconds"))) is not None:
        form["seconds"] = seconds
    if (length := as_int(pick(value, "fileLength", "file_size"))) is not None:
        form["file_length"] = length
    if as_flag(pick(value, "ptt", "PTT", "voice")):
        form["ptt"] = True


def _read_location(form: NormalForm, value: Object) -> None:
    put_text(form, pick_text(value, "name", "address", "caption"))
    lat = as_float(pick(value, "degreesLatitude", "latitude"))
    lon = as_float(pick(value, "degreesLongitude", "longitude"))
    if lat is not None and lon is not None:
        form["lat"], form["lon"] = lat, lon


def _read_contact(form: NormalForm, value: Object) -> None:
    cards = [as_object(card) for card in as_list(value.get("contacts"))]
    names = [name for card in cards if (name := pick_text(card, "displayName"))]
    put_text(form, pick_text(value, "displayName") or ", ".join(names))


def _read_reaction(form: NormalForm, value: Object) -> None:
    put_text(form, value.get("text"))
    if "text" not in form:
        form["kind"] = "reaction_removed"
    _put_target(form, value.get("key"))


def _read_encrypted_reaction(form: NormalForm, value: Object) -> None:
    _put_target(form, pick(value, "targetMessageKey", "key"))


def _put_target(form: NormalForm, key: object) -> None:
    _put_word(form, "target_id", pick_text(as_object(key), "id", "ID"))


def _put_choice(form: NormalForm, text: str | None, choice: str | None) -> None:
    put_text(form, text or choice)
    _put_word(form, "choice_id", choice)


def _read_button(form: NormalForm, value: Object) -> None:
    choice = pick_text(
        value, "selectedButtonId", "selectedButtonID", "selectedId", "selectedID"
    )
    _put_choice(form, pick_text(value, "selectedDisplayText"), choice)


def _read_list(form: NormalForm, value: Object) -> None:
    row = as_object(value.get("singleSelectReply"))
    choice = pick_text(row, "selectedRowId", "selectedRowID")
    _put_choice(form, pick_text(value, "title", "description"), choice)


def _read_interactive(form: NormalForm, value: Object) -> None:
    flow = as_object(value.get("nativeFlowResponseMessage"))
    answer = _json_object(pick_text(flow, "paramsJson", "paramsJSON"))
    text = pick_text(answer, "display_text", "title")
    body = pick_text(as_object(value.get("body")), "text")
    _put_choice(form, text or body, pick_text(answer, "id"))


def _json_object(text: str | None) -> Object:
    try:
        return as_object(json.loads(text or "null"))
    except (ValueError, RecursionError):
        return {}


def _read_poll(form: NormalForm, value: Object) -> None:
    put_text(form, value.get("name"))


def _read_vote(form: NormalForm, value: Object) -> None:
    chosen = as_list(as_object(value.get("vote")).get("selectedOptions"))
    put_text(form, ", ".join(name for name in chosen if isinstance(name, str)))
    _put_target(form, value.get("pollCreationMessageKey"))


def _read_secret_edit(form: NormalForm, value: Object) -> None:
    # Clients of 2026 encrypt edits: only the target can be read.
    _put_target(form, value.get("targetMessageKey"))


_READERS: dict[str, tuple[str, _Reader]] = {
    "protocolMessage": ("system", put_protocol),
    "secretEncryptedMessage": ("edit", _read_secret_edit),
    "extendedTextMessage": ("text", _read_text),
    "imageMessage": ("image", _read_media),
    "videoMessage": ("video", _read_media),
    "ptvMessage": ("video", _read_media),
    "audioMessage": ("audio", _read_media),
    "documentMessage": ("document", _read_media),
    "stickerMessage": ("sticker", _read_media),
    "locationMessage": ("location", _read_location),
    "liveLocationMessage": ("location", _read_location),
    "contactMessage": ("contact", _read_contact),
    "contactsArrayMessage": ("contact", _read_contact),
    "reactionMessage": ("reaction", _read_reaction),
    "encReactionMessage": ("reaction", _read_encrypted_reaction),
    "buttonsResponseMessage": ("button", _read_button),
    "templateButtonReplyMessage": ("button", _read_button),
    "interactiveResponseMessage": ("button", _read_interactive),
    "listResponseMessage": ("list", _read_list),
    "pollCreationMessage": ("poll", _read_poll),
    "pollCreationMessageV2": ("poll", _read_poll),
    "pollCreationMessageV3": ("poll", _read_poll),
    "pollCreationMessageV4": ("poll", _read_poll),
    "pollCreationMessageV5": ("poll", _read_poll),
    "pollUpdateMessage": ("poll_vote", _read_vote),
}
_NESTED_READERS = {n: r for n, r in _READERS.items() if n != "protocolMessage"}
