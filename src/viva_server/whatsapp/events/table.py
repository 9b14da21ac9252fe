"""Evolution's events (names, paths, how their data is read) and the normal form.

A path cannot be turned back into a name by a replacement: `group-participants-update`
is `group-participants.update`, `typebot-change-status` is `typebot.change-status`.
"""

from __future__ import annotations

from typing import NamedTuple, Required, TypedDict


class Event(NamedTuple):
    """One event: its name in a list of events, in a body and in a path.

    `kind` says how its data is read.
    """

    config: str
    name: str
    path: str
    kind: str


_KINDS = {
    "application.startup": "system",
    "instance.create": "system",
    "instance.delete": "system",
    "qrcode.updated": "system",
    "connection.update": "connection",
    "status.instance": "system",
    "messages.set": "history",
    "messages.upsert": "message",
    "messages.edited": "protocol",
    "messages.update": "status",
    "messages.delete": "delete",
    "send.message": "message",
    "send.message.update": "protocol",
    "contacts.set": "contacts",
    "contacts.upsert": "contacts",
    "contacts.update": "contacts",
    "presence.update": "presence",
    "chats.set": "chats",
    "chats.update": "chats",
    "chats.upsert": "chats",
    "chats.delete": "chats",
    "groups.upsert": "groups",
    "groups.update": "groups",
    "group-participants.update": "groups",
    "call": "call",
    "typebot.start": "system",
    "typebot.change-status": "system",
    "chama-ai.action": "system",
    "labels.edit": "labels",
    "labels.association": "labels",
    "creds.update": "system",
    "messaging-history.set": "history_done",
    "remove.instance": "system",
    "logout.instance": "system",
}

GO_KINDS = {
    name: kind
    for kind, names in {
        "message": "Message SendMessage",
        "status": "Receipt",
        "presence": "Presence ChatPresence",
        "chats": "Archive",
        "history": "HistorySync",
        "call": "CallOffer CallAccept CallTerminate CallOfferNotice CallRelayLatency",
        "connection": "Connected LoggedOut Disconnected ConnectFailure TemporaryBan"
        " PairSuccess",
        "labels": "LabelEdit LabelAssociationChat LabelAssociationMessage",
        "contacts": "Contact PushName",
        "groups": "GroupInfo JoinedGroup",
        "system": "OfflineSyncCompleted NewsletterJoin NewsletterLeave QRCode QRTimeout"
        " QRSuccess",
    }.items()
    for name in names.split()
}
"""evolution-go's CamelCase events; it has no paths of its own."""

OTHER_KINDS = {"new.jwt": "system", "error": "system"}
"""Outside Evolution's enum: 1.x' token hand-out and the hook for errors."""

AWAITED = frozenset({"messages.edited", "remove.instance", "logout.instance"})
"""Evolution's queue stands still until these are answered."""


def _event(name: str, kind: str) -> Event:
    # The rule of sendDataWebhook (1.x to 2.1.0) and webhook.controller.ts (2.1.1+).
    config = name.replace(".", "_").replace("-", "_").upper()
    return Event(config, name, config.replace("_", "-").lower(), kind)


EVENTS = tuple(_event(name, kind) for name, kind in _KINDS.items())

_BY_PATH = {event.path: event for event in EVENTS}


def find_in_table(word: str) -> Event | None:
    """Return the event of a path segment, a dotted name or a configuration name."""
    return _BY_PATH.get(word.lower().replace("_", "-").replace(".", "-"))


def label_of(event: str) -> str:
    """Return the event, `other` for one that the table lacks: labels must stay few."""
    return event if event in GO_KINDS or event in _KINDS else "other"


class NormalForm(TypedDict, total=False):
    """What a delivery says; a key that does not apply is left out.

    Booleans other than `answer`, `from_me`, `group` and `has_base64` are only there
    when true. Jids carry no device. `timestamp` is epoch seconds.
    """

    event: Required[str]
    kind: Required[str]
    answer: Required[bool]
    """A fresh message of a person in a private chat, with something to answer."""
    unknown_event: bool
    """The table does not know `event`; it is kept as it came."""
    inferred_event: bool
    """Only the shape of the body told the event."""
    instance: str
    chat: str
    """Where a reply goes: the phone jid wherever the delivery tells it."""
    sender: str
    """The author, never the envelope's `sender` of an inbound message."""
    push_name: str
    phone: str
    """The author's digits."""
    lid: str
    """The author's lid, where it is told beside the phone."""
    from_me: bool
    group: bool
    self_chat: bool
    status: bool
    """A story (`status@broadcast`)."""
    message_id: str
    target_id: str
    """The message that an edit, a delete, a reaction or a vote is about."""
    text: str
    texts: list[str]
    items: list[NormalForm]
    """The single messages of a `batch`, in order."""
    quoted_id: str
    choice_id: str
    mentions_me: bool
    ad: bool
    view_once: bool
    ephemeral: bool
    timestamp: int
    stale: bool
    human_takeover: bool
    chatwoot_conversation: int
    mimetype: str
    filename: str
    seconds: int
    ptt: bool
    file_length: int
    has_base64: bool
    media_url: bool
    lat: float
    lon: float
    status_value: str
    ambiguous: bool
    """The status means something else in some versions (`DELETED` may be an edit)."""
    state: str
    count: int
    progress: int
    reply_in_response: str
    """The sender of this body sends what the HTTP answer holds under that key."""
