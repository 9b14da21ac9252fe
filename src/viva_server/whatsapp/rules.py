"""Who is answered on WhatsApp, with what, and when not; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from viva_server.config import Config
from viva_server.values import FinishReason, Status
from viva_server.whatsapp.events.addresses import is_person, phone_of
from viva_server.whatsapp.events.content import ANSWERED, WRITTEN
from viva_server.whatsapp.events.table import NormalForm

GREETING_SECONDS: Final = 3.0
"""An own message this close behind a person's is WhatsApp Business' greeting."""

MAX_RERUNS: Final = 3
FAILURE_TEXT: Final = (
    "Desculpe, não consegui responder agora. Tente de novo daqui a alguns minutos."
)
MAX_TURN_CHARS: Final = 32_000

_RERUN_SECONDS: Final = (1.0, 5.0, 20.0)
_AT_ONCE: Final[frozenset[str | None]] = frozenset({"crashed", "shutdown", None})
# Another run would meet the same limit, or filter.
_SETTLED: Final = frozenset({"limit", "length", "content_filter"})
_LONGEST_RETRY_SECONDS: Final = 60.0

_KEPT: Final = WRITTEN | {"reaction"}

FAILED_RANK: Final = 3
"""Of a receipt that says that the message was not delivered and will not be."""

_RECEIPT_RANKS: Final = {
    "0": FAILED_RANK, "ERROR": FAILED_RANK, "FAILED": FAILED_RANK,
    "1": 1, "PENDING": 1,
    "2": 2, "SERVER_ACK": 2, "SENT": 2,
    "3": 4, "DELIVERY_ACK": 4, "DELIVERED": 4,
    "4": 5, "READ": 5,
    "5": 6, "PLAYED": 6,
}  # fmt: skip

_NOTES: Final = {
    "image": "[imagem]",
    "video": "[vídeo]",
    "audio": "[áudio]",
    "document": "[documento]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings by which messages are judged; durations are seconds."""

    max_age_seconds: float = 3600.0
    groups: bool = False
    ignore: frozenset[str] = frozenset()
    debounce_seconds: float = 2.0
    handover_seconds: float = 1800.0

    @classmethod
    def of(cls, config: Config) -> Rules:
        """Take what concerns the rules."""
        return cls(
            max_age_seconds=config.whatsapp_max_age_seconds,
            groups=config.whatsapp_groups,
            ignore=frozenset(map(_plain, config.whatsapp_ignore)),
            debounce_seconds=config.whatsapp_debounce_seconds,
            handover_seconds=config.whatsapp_handover_seconds,
        )

    def why_not(self, form: NormalForm, now: float) -> str | None:
        """Say why a message is not answered; None: it is. `now` is epoch seconds."""
        if place := self._wrong_place(form):
            return place
        if form["kind"] not in ANSWERED:
            return form["kind"]
        if form.get("reply_in_response"):
            # Evolution's own bot asks; it would send what this server sends again.
            return "bot_request"
        if self.is_ignored(form):
            return "ignored"
        timestamp = form.get("timestamp")
        if timestamp is not None and timestamp < now - self.max_age_seconds:
            return "old"
        return None

    def is_ignored(self, form: NormalForm) -> bool:
        """Whether the author or the chat is on the list of `VIVA_WHATSAPP_IGNORE`."""
        if not self.ignore:
            return False
        names = (form.get("chat"), form.get("sender"), form.get("lid"))
        known = {_plain(name) for name in names if name}
        return not self.ignore.isdisjoint(known)

    def _wrong_place(self, form: NormalForm) -> str | None:
        chat = form.get("chat", "")
        if form.get("from_me"):
            return "own"
        if form.get("status"):
            return "status"
        for suffix in ("newsletter", "broadcast"):
            if chat.endswith(f"@{suffix}"):
                return suffix
        if form.get("self_chat"):
            return "self_chat"
        if form.get("group"):
            return None if self.groups else "group"
        return None if is_person(chat) else "nobody"


def forms_of(form: NormalForm) -> list[NormalForm]:
    """Give the single messages or receipts of a delivery."""
    return form.get("items") or [form]


def is_kept(form: NormalForm) -> bool:
    """Whether a row is made of a message of a person.

    Not of one without content: it could not be decrypted, and comes again under its
    id. Not of changes, which name the id of another.
    """
    return (
        form["kind"] in _KEPT
        and not form.get("from_me")
        and "message_id" in form
        and "chat" in form
    )


def is_own(form: NormalForm) -> bool:
    """Whether the instance's number wrote this, by whatever hand or program."""
    return (
        form.get("from_me", False)
        and form["kind"] in WRITTEN
        and "message_id" in form
        and "chat" in form
    )


def may_hand_over(form: NormalForm) -> bool:
    """Whether an own message that this server did not send pauses the assistant.

    On the phone a person wrote it; as `send.message` another program or a Chatwoot
    agent did, which answers in this one's place all the same.
    """
    return is_person(form.get("chat")) and not form.get("self_chat", False)


def was_greeting(own_at: float, message_at: float) -> bool:
    """Whether an own message was the greeting of one that was delivered after it.

    Within one second, which is WhatsApp's resolution, the order of delivery counts.
    """
    return 0 < own_at - message_at <= GREETING_SECONDS


def receipt_rank(status: str | None) -> int:
    """Order the receipts of all versions; 0 is one that is not known.

    An error comes behind the server's own receipt, before the other side's.
    """
    return _RECEIPT_RANKS.get((status or "").upper(), 0)


def text_for_model(form: NormalForm) -> str | None:
    """Give what the model sees of a message; None: it has no text."""
    text = form.get("text")
    if form["kind"] == "location":
        place = [text] if text else []
        if "lat" in form and "lon" in form:
            place.append(f"{form['lat']:.5f}, {form['lon']:.5f}")
        text = f"[localização] {' – '.join(place)}".rstrip()
    elif form["kind"] == "contact":
        text = f"[contato] {text or ''}".rstrip()
    elif form["kind"] in {"button", "list"}:
        text = text or form.get("choice_id")
    if text is None or not text.strip():
        return None
    if form.get("group") and (name := form.get("push_name")):
        return f"{name}: {text}"
    return text


def join_messages(messages: Iterable[tuple[str, str | None]]) -> str | None:
    """Join a turn's messages, pairs of kind and text; None: none of them has text.

    Media between texts are noted, so that the model can say that it does not see them.
    """
    pairs = list(messages)
    if not any(text for _, text in pairs):
        return None
    lines = [text or _NOTES.get(kind, "") for kind, text in pairs]
    return "\n".join(line for line in lines if line)[:MAX_TURN_CHARS]


def is_sent(status: Status, finish_reason: FinishReason) -> bool:
    """Whether a reply goes out: a whole one, or one that is at our own limit."""
    return status == "complete" or (status == "partial" and finish_reason == "limit")


def rerun_seconds(
    runs: int, finish_reason: FinishReason | None, *, is_final: bool
) -> float | None:
    """Say after how many seconds a cut turn runs again; None: never.

    `runs` counts the runs so far. `finish_reason` None means that the reply of the
    last one was never begun, or is not known.
    """
    if runs > MAX_RERUNS or is_final or finish_reason in _SETTLED:
        return None
    if finish_reason in _AT_ONCE:
        return 0.0
    return _RERUN_SECONDS[max(runs, 1) - 1]


def retry_seconds(attempts: int, retry_after: float | None) -> float:
    """Say when a send that surely did nothing is made again: 1, 2, 4 … 60 s."""
    backoff = min(2.0 ** min(attempts, 16), _LONGEST_RETRY_SECONDS)
    return max(backoff, retry_after or 0.0)


def person_of(instance: str, jid: str) -> str:
    """Name the person, or the group, that a chat's session belongs to."""
    return f"{instance}/{phone_of(jid) or jid}"


def _plain(name: str) -> str:
    """Bring a phone number, however it is written, and its jid to one form."""
    if "@" in name:
        return phone_of(name) or name
    return re.sub(r"\D", "", name)
