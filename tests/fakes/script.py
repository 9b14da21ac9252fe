"""What the fake model does with one request, and the text that it answers with."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields, replace
from typing import Final

ENDLESS: Final = -1

# Accents, a character outside the BMP and a combining one: offsets are code points.
_WORDS: Final = (
    "olá",
    "casa",
    "não",
    "😀",
    "pa\u0303o",
    "rio",
    "árvore",
    "sol",
    "maçã",
)
_PIECE: Final = re.compile(r"\S+\s*|\s+")
_DIRECTIVE: Final = re.compile(r"model:(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The behaviour for one request; times are milliseconds.

    `mode` is "answer" (a text computed from the last user message) or "echo" (that
    message itself). After `cut_after` tokens the stream ends as `cut` says: "eof" (a
    clean end without finish reason or [DONE]), "fin", "rst", "stall" (silence),
    "error" (an error object), "garbage". `events` replaces the body, `raw` the whole
    response; both are sent as they stand, in pieces of `piece` bytes with the interval
    between them.
    """

    mode: str = "answer"
    tokens: int = 20
    interval_ms: float = 0.0
    first_ms: float = 0.0
    cut: str = ""
    cut_after: int = 0
    finish: str = "stop"
    done: bool = True
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    events: bytes | None = None
    raw: bytes | None = None
    piece: int = 0

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read "tokens=200 interval_ms=20 cut=rst cut_after=3 Retry-After=2"."""
        return cls().changed(text)

    def changed(self, text: str) -> Script:
        """Return a copy with the settings in the text; unknown words are headers."""
        types = {each.name: type(getattr(self, each.name)) for each in fields(self)}
        values: dict[str, object] = {}
        headers = dict(self.headers)
        for word in re.split(r"[\s,]+", text.strip()):
            name, _, value = word.partition("=")
            if name not in types:
                headers |= {name: value} if name else {}
            elif types[name] is bool:
                values[name] = value not in {"0", "false", ""}
            else:
                values[name] = types[name](value)
        return replace(self, headers=headers, **values)  # type: ignore[arg-type]

    def for_message(self, message: str) -> Script:
        """Obey a word such as `model:tokens=5,cut=rst` in the user's message."""
        directive = _DIRECTIVE.search(message)
        return self.changed(directive[1]) if directive else self


def token(script: Script, message: str, index: int) -> str:
    """Return one token of the answer; the same for the same message and index."""
    if script.mode == "echo":
        return _pieces(message)[index]
    word = _WORDS[(_seed(message) + index * 7) % len(_WORDS)]
    return f"{word}{index} "


def token_count(script: Script, message: str) -> int:
    """Return how many tokens the whole answer has, or `ENDLESS`."""
    if script.mode == "echo":
        return len(_pieces(message))
    return script.tokens


def reply_to(message: str, script: Script | None = None) -> str:
    """Return the whole text that a model with this script sends for this message."""
    script = (script or Script()).for_message(message)
    count = token_count(script, message)
    if script.cut:
        count = script.cut_after
    return "".join(token(script, message, index) for index in range(count))


def _pieces(message: str) -> list[str]:
    return [match[0] for match in _PIECE.finditer(message)]


def _seed(message: str) -> int:
    return int.from_bytes(hashlib.sha256(message.encode()).digest()[:4])
