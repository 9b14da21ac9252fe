"""The normal form: one flat object for whatever any Evolution version delivers."""

from __future__ import annotations

from typing import Required, TypedDict


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
