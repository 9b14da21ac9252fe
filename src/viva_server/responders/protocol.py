"""What a responder is given and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from viva_server.values import Channel

CompleteReason = Literal["stop", "length", "content_filter"]

_NO_REASON: Final = frozenset({"", "null", "none"})
# In lower case. A word that is not here, of whatever type, means "stop".
_REASONS: Final[Mapping[str, CompleteReason | Literal["upstream_error"]]] = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_new_tokens": "length",
    "model_length": "length",  # Mistral: the context is full
    "content_filter": "content_filter",
    "safety": "content_filter",  # Gemini, as the next
    "recitation": "content_filter",
    "sensitive": "content_filter",  # Zhipu's GLM
    "error": "upstream_error",
    "abort": "upstream_error",
    "network_error": "upstream_error",
    "insufficient_system_resource": "upstream_error",
}


def finish_reason_of(
    word: object,
) -> CompleteReason | Literal["upstream_error"] | None:
    """Give the meaning of a server's finish reason; None: it has none.

    "upstream_error" is a reply that the server has given up.
    """
    if word is None:
        return None
    if not isinstance(word, str):
        return "stop"
    plain = word.strip().lower()
    return None if plain in _NO_REASON else _REASONS.get(plain, "stop")


@dataclass(frozen=True, slots=True)
class ConversationMessage:
    """One earlier message, or the one to be answered (the last)."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All that a responder may know: oldest message first, the user's newest last.

    `user_id` is the JWT's `sub` for channel "web", else instance and phone (or lid).
    """

    messages: tuple[ConversationMessage, ...]
    session_id: str
    user_id: str
    channel: Channel
    modo: str | None = None


class EndOfReply(Exception):  # noqa: N818 - it is an end, not an error
    """Raised by a responder after its last delta to say why the reply ends there.

    A responder that simply returns has ended with "stop". Takes the words of any
    model's server (docs/models.md): with "length", the model's own limit, and
    "content_filter" the reply counts as complete, with "error" it is broken; a word
    that nobody knows is "stop".

    `usage` is stored in the reply's `meta.usage`: what JSON has of numbers by name.
    """

    def __init__(
        self, finish_reason: object = "stop", *, usage: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(finish_reason)
        self.finish_reason: CompleteReason | Literal["upstream_error"] = (
            finish_reason_of(finish_reason) or "stop"
        )
        self.usage = usage


Responder = Callable[[Conversation], AsyncIterator[str]]
"""A function that streams a reply as deltas.

It runs in a task of its own that no client can cancel. It is closed (`aclose()`, so
GeneratorExit or CancelledError at its await) when the reply is stopped; what it gave
until then is kept. It raises `viva_server.ResponderError` when the model fails; any
other exception is taken as an unretryable failure and logged.
"""
