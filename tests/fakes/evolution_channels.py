"""How Evolution 2.3.7 words its events and answers on each of its channels.

After the bodies and the table that were recorded of a real one
(tests/data/evolution_recorded); the source is `src/api/integrations/channel/`.
"""

from __future__ import annotations

import hashlib
import uuid
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final, Literal

Channel = Literal["baileys", "evolution", "meta"]

INTEGRATIONS: Final[dict[Channel, str]] = {
    "baileys": "WHATSAPP-BAILEYS",
    "evolution": "EVOLUTION",
    "meta": "WHATSAPP-BUSINESS",
}
NO_METHOD: Final[dict[Channel, str]] = {
    "evolution": "Method not available on Evolution Channel",
    "meta": "Method not available on WhatsApp Business API",
}
INSTANCE_ID: Final = "8d9a5b7e-0000-4000-8000-000000000001"
META_TOKEN: Final = "EAAG-meta-token"
MEDIA: Final = frozenset({"image", "video", "audio", "document", "sticker"})

_MESSAGE_TYPES: Final = {"text": "conversation", "contacts": "contactMessage"}
_META_FILE: Final = {"id": "MEDIA1", "sha256": "abc"}
_VCARD: Final = "BEGIN:VCARD\nVERSION:3.0\nFN:Ana\nEND:VCARD"
_PLACE: Final = {
    "degreesLatitude": -23.5,
    "degreesLongitude": -46.6,
    "name": "Loja",
    "address": "Rua A, 1",
}

# Meta's fields stay as Graph names them ("mime_type"); its own channel passes on what
# was posted to it, in Baileys' words here.
_CONTENT: Final[dict[Channel, dict[str, dict[str, Any]]]] = {
    "meta": {
        "image": {**_META_FILE, "mime_type": "image/jpeg", "caption": "Uma foto"},
        "video": {**_META_FILE, "mime_type": "video/mp4"},
        "audio": {
            **_META_FILE,
            "mime_type": "audio/ogg; codecs=opus",
            "voice": True,
            "ptt": True,
        },
        "document": {
            **_META_FILE,
            "mime_type": "application/pdf",
            "filename": "conta.pdf",
        },
        "sticker": {**_META_FILE, "mime_type": "image/webp", "animated": False},
        "location": _PLACE,
        "contacts": {"displayName": "Ana", "vcard": _VCARD},
        "reaction": {"key": {"id": "wamid.OUT1"}, "text": "👍"},
    },
    "evolution": {
        "image": {
            "url": "https://files.example/1",
            "mimetype": "image/jpeg",
            "caption": "Uma foto",
        },
        "audio": {
            "url": "https://files.example/2",
            "mimetype": "audio/ogg",
            "ptt": True,
        },
        "document": {"fileName": "conta.pdf", "mimetype": "application/pdf"},
        "location": {**_PLACE, "degreesLatitude": -1.5},
        "extendedText": {"text": "oi"},
    },
    "baileys": {},
}


def content(
    channel: Channel, kind: str, fields: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return the `message` of a kind, with these of its fields or with all."""
    whole = _CONTENT[channel][kind]
    wanted = whole if fields is None else fields
    return {message_type(kind): {name: whole[name] for name in wanted}}


def message_type(kind: str) -> str:
    """Return Evolution's `messageType` of a kind."""
    return _MESSAGE_TYPES.get(kind, f"{kind}Message")


def message_id(channel: Channel, number: int, jid: str) -> str:
    """Return an id as the channel makes them; Meta's holds the phone."""
    if channel == "baileys":
        return f"3EB0{number:016X}"
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    if channel == "evolution":
        return str(uuid.UUID(digest[:32], version=4))
    phone = jid.partition("@")[0].encode()
    held = b"\x1c\x18" + bytes([len(phone)]) + phone + b"\x15\x02\x00\x12\x18\x14"
    return f"wamid.{b64encode(held + digest[:20].upper().encode() + bytes(1)).decode()}"


def sent_row(channel: Channel, row: dict[str, Any]) -> dict[str, Any]:
    """Return a sent message as `send.message` and the answer have it."""
    if channel == "baileys":
        return {**row, "status": "PENDING"}
    bare = {k: v for k, v in row.items() if k not in {"id", "pushName"}}
    bare["source"] = "unknown"
    return {**bare, "status": "PENDING"} if channel == "meta" else bare


def received_row(channel: Channel, row: dict[str, Any]) -> dict[str, Any]:
    """Return a person's message as `messages.upsert` has it."""
    if channel == "baileys":
        return row
    bare = {k: v for k, v in row.items() if k != "id"}
    if context := row["message"].get("contextInfo"):
        bare["contextInfo"] = context
    return {**bare, "source": "unknown"}


def receipt(
    channel: Channel, key_id: str, jid: str, status: str, row_id: str
) -> dict[str, Any]:
    """Return the data of a messages.update. On Meta's channel `fromMe` is false."""
    common = {"keyId": key_id, "remoteJid": jid, "status": status}
    if channel != "meta":
        return {**common, "fromMe": True}
    return {
        **common,
        "messageId": row_id,
        "fromMe": False,
        "participant": jid,
        "instanceId": INSTANCE_ID,
    }


def contact(channel: Channel, jid: str, name: str) -> dict[str, Any]:
    """Return the data of a contacts.upsert; Meta's names no address."""
    found = {"remoteJid": jid, "pushName": name, "instanceId": INSTANCE_ID}
    if channel == "meta":
        del found["remoteJid"]
    return found


def envelope(channel: Channel, *, is_paired: bool = True) -> dict[str, Any]:
    """Return what the root of every event has beside the common names.

    `sender` is there on a paired Baileys instance alone; without it, or with none of
    the words here, the sender of webhooks leaves its own.
    """
    if channel == "baileys" and is_paired:
        return {}
    return {"sender": None, "apikey": META_TOKEN if channel == "meta" else "token-1"}


def closed_answer(jid: str, *, is_cached: bool, was_paired: bool) -> tuple[int, object]:
    """Return status and message of a `sendText` while Baileys' socket is away.

    The number check stands outside the `try` whose catch answers 400, and it alone
    asks WhatsApp: for a phone that is not in the cache. A group's data are asked for
    within it, and what is thrown there is an object.
    """
    if not was_paired:
        text = "TypeError: Cannot read properties of undefined (reading 'id')"
        return 400, [text]
    if jid.endswith("@g.us"):
        return 400, ["[object Object]"]
    if jid.endswith("@lid") or is_cached:
        return 400, ["Error: Connection Closed"]
    return 500, "Connection Closed"
