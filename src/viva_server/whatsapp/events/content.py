"""What a message says: its kind, its text, its media, its quote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from viva_server.whatsapp.events.json_values import clean_text
from viva_server.whatsapp.events.normal_form import NormalForm
from viva_server.whatsapp.events.shapes import (
    Object,
    as_flag,
    as_float,
    as_int,
    as_list,
    as_object,
    as_text,
    pick,
    pick_text,
)

MEDIA = frozenset({"image", "video", "audio", "document", "sticker"})

_WRAPPERS = dict.fromkeys(
    (
        "ephemeralMessage",
        "viewOnceMessage",
        "viewOnceMessageV2",
        "viewOnceMessageV2Extension",
        "documentWithCaptionMessage",
        "editedMessage",
        "deviceSentMessage",
        "associatedChildMessage",
        "groupMentionedMessage",
        "groupStatusMessage",
        "groupStatusMessageV2",
        "lottieStickerMessage",
        "botInvokeMessage",
    )
)
_MAX_WRAPPERS = 5
MAX_TEXT = 65_536  # WhatsApp's own limit

_Reader = Callable[[NormalForm, Object], None]


class Unwrapped(NamedTuple):
    """A message without its wrappers, and their names."""

    message: Object
    wrappers: frozenset[str]


def unwrap(message: Object) -> Unwrapped:
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
    return Unwrapped(message, frozenset(wrappers))


def _first_object(names: Mapping[str, object], message: Object) -> str | None:
    """Return the first of the names under which an object stands."""
    if names.keys().isdisjoint(message):  # so it is with a plain text
        return None
    return next((n for n in names if isinstance(message.get(n), dict)), None)


def put_content(form: NormalForm, message: Object, *, nested: bool = False) -> None:
    """Put kind, text and all that the content tells; `empty` when nothing is read.

    `nested` content is that of an edit: another protocolMessage in it is not read.
    """
    content, wrappers = unwrap(message)
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


def contexts(row: Object, message: Object) -> list[Object]:
    """Return the contextInfo objects: the row's, the content's, the message's."""
    content = unwrap(message).message
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
    if mimetype := pick_text(value, "mimetype", "mime_type"):
        form["mimetype"] = clean_text(mimetype[:255])
    if filename := pick_text(value, "fileName", "filename", "title"):
        form["filename"] = clean_text(filename[:255])
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
    if target := pick_text(as_object(key), "id", "ID"):
        form["target_id"] = clean_text(target[:255])


def _put_choice(form: NormalForm, text: str | None, choice: str | None) -> None:
    put_text(form, text or choice)
    if choice:
        form["choice_id"] = clean_text(choice[:255])


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
