"""evolution-go's bodies: whatsmeow's names, brought into Evolution's shape."""

from __future__ import annotations

from viva_server.whatsapp.events.addresses import GROUP
from viva_server.whatsapp.events.shapes import Object, as_flag, as_object, pick_text

STATES = {
    "Connected": "open",
    "LoggedOut": "close",
    "Disconnected": "close",
    "CallOffer": "offer",
    "CallOfferNotice": "offer",
    "CallAccept": "accept",
    "CallTerminate": "terminate",
}


def message_row(data: Object) -> dict[str, object]:
    """Return a Message as a row of messages.upsert."""
    info = as_object(data.get("Info"))
    return {
        "key": message_key(info),
        "pushName": info.get("PushName"),
        "message": data.get("Message"),
        "messageTimestamp": info.get("Timestamp"),
        "ephemeral": as_flag(data.get("IsEphemeral")),
        "viewOnce": as_flag(data.get("IsViewOnce"))
        or as_flag(data.get("IsViewOnceV2")),
        "edited": as_flag(data.get("IsEdit")),
    }


def message_key(info: Object) -> dict[str, object]:
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
