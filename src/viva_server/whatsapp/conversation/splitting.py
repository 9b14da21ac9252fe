"""Long replies become several WhatsApp messages, cut where a reader would pause."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_MESSAGE_CHARS: Final = 4000

# Best first. None begins with a repetition: a run of blanks would cost its square.
_PAUSES: Final = tuple(
    re.compile(pattern) for pattern in (r"\n[^\S\n]*\n", r"\n", r"(?<=[.!?…])\s", r"\s")
)
_JOINERS: Final = "\u200d\ufe0e\ufe0f"
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_MAX_STEPS_BACK: Final = 20


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
