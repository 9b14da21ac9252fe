"""From a whole reply to WhatsApp messages: split, stored with its closing, sent once.

A send is never repeated blindly: what may have been carried out is of unknown outcome,
and Evolution's own event settles it (`updates`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from typing import Final, NamedTuple

import msgspec

from viva_server.counters import WhatsAppCounters
from viva_server.errors import FencedError, StoreError
from viva_server.store.driver.database import Database, Statements
from viva_server.store.processes import SETTLE_SECONDS
from viva_server.store.replies import ClosedReply
from viva_server.values import new_id
from viva_server.whatsapp.evolution.client import EvolutionClient, SendOutcome
from viva_server.whatsapp.rules import FAILURE_TEXT, is_sent, retry_seconds

logger = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.5

MAX_MESSAGE_CHARS: Final = 4000

# Best first. None begins with a repetition: a run of blanks would cost its square.
_PAUSES: Final = tuple(
    re.compile(pattern) for pattern in (r"\n[^\S\n]*\n", r"\n", r"(?<=[.!?…])\s", r"\s")
)
_JOINERS: Final = "\u200d\ufe0e\ufe0f"
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_MAX_STEPS_BACK: Final = 20


async def close_turn_replies(
    database: Statements, owner: str, replies: list[ClosedReply]
) -> set[str]:
    """Close replies of turns; the same statement puts what is sent into the outbox.

    Repeating it changes nothing. Gives the ids of the replies that are stored, as
    `close_replies` does.

    Raises:
        FencedError: another process has declared this owner dead.
    """
    rows = [(*reply, _parts(reply)) for reply in replies]
    closed = await database.fetch(
        "close_turns", owner=owner, replies=msgspec.json.encode(rows).decode()
    )
    if not closed:
        raise FencedError
    return {row.message_id for row in closed if row.message_id is not None}


def _parts(reply: ClosedReply) -> list[tuple[str, str]]:
    """Give the id and text of each message that a reply becomes."""
    if not is_sent(reply.status, reply.finish_reason):
        return []
    # A reply of blanks alone is none, and Evolution refuses an empty text.
    texts = split_reply(reply.text) or [FAILURE_TEXT]
    return [(new_id(), text) for text in texts]


def split_reply(text: str, limit: int = MAX_MESSAGE_CHARS) -> list[str]:
    """Split a reply at the ends of paragraphs, else lines, else sentences, else words.

    No word is lost: only white space at a cut and around the whole is left out. Each
    part has 1 to `limit` characters; a word that is longer is cut between characters
    that do not belong together. A blank text gives no part.
    """
    parts = []
    rest = text.strip()
    while len(rest) > limit:
        end = _cut(rest, limit)
        parts.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest:
        parts.append(rest)
    return parts


def _cut(text: str, limit: int) -> int:
    """Return where the first part ends.

    A better kind of pause in the first half loses against a worse one in the second:
    many small messages read worse than a cut within a paragraph.
    """
    for least in (limit // 2 or 1, 1):
        for pause in _PAUSES:
            # One character more: the white space after a part may lie behind its end.
            places = [found.start() for found in pause.finditer(text, least, limit + 1)]
            if places:
                return places[-1]
    return _between_characters(text, limit)


def _between_characters(text: str, limit: int) -> int:
    """Return a place near `limit` that no emoji or accent is cut by."""
    for place in range(limit, max(limit - _MAX_STEPS_BACK, 0), -1):
        if not _belongs_to(text[place], text[place - 1]):
            return place
    return limit


def _belongs_to(character: str, before: str) -> bool:
    return (
        unicodedata.combining(character) > 0
        or character in _JOINERS
        or before == "\u200d"
        or ord(character) in _SKIN_TONES
    )


class Send(NamedTuple):
    """A part that this owner is to send now, and nobody else: a row of claim_sends."""

    id: str
    turn_id: str
    instance: str
    jid: str
    text: str
    attempts: int
    is_expired: bool
    is_paused: bool


_STATES: Final = {"retry": "waiting"}


class Outbox:
    """Sends claimed parts and writes what became of them."""

    def __init__(
        self, database: Database, client: EvolutionClient, counters: WhatsAppCounters
    ) -> None:
        self._database = database
        self._client = client
        self._counters = counters

    async def send(self, owner: str, send: Send) -> None:
        """Send one part of this owner.

        A cancellation in the request leaves it as being sent; whoever releases this
        owner, or declares it dead, marks it as of unknown outcome.
        """
        if send.is_expired:
            await self._finish(owner, send, SendOutcome("dead", reason="expired"))
        elif send.is_paused:
            # A person answers in this chat by now.
            dropped = SendOutcome("dead", reason="handover")
            await self._finish(owner, send, dropped, state="dropped")
        else:
            outcome = await self._client.send_text(send.instance, send.jid, send.text)
            self._counters.sends[outcome.kind] += 1
            await self._finish(owner, send, outcome)

    async def _finish(
        self, owner: str, send: Send, outcome: SendOutcome, *, state: str | None = None
    ) -> None:
        """Write the outcome, for as long as the database takes.

        Nothing is written where an event has settled it before.
        """
        if outcome.kind == "dead" and state is None:
            logger.error("Part %s is not sent: %s", send.id, outcome.reason)
        due_seconds = 0.0
        if outcome.kind == "retry":
            due_seconds = retry_seconds(send.attempts, outcome.retry_after)
        elif outcome.kind == "unknown":
            due_seconds = SETTLE_SECONDS
        while True:
            try:
                await self._database.fetch(
                    "finish_send",
                    owner=owner,
                    outbox_id=send.id,
                    state=state or _STATES.get(outcome.kind, outcome.kind),
                    outcome=state or outcome.kind,
                    error=outcome.reason or None,
                    message_id=outcome.message_id,
                    due_seconds=due_seconds,
                )
            except StoreError as failure:
                logger.warning("The outbox waits for the database: %s", failure)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return
