"""What a responder is given and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from viva_server.words import Channel


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

    A responder that simply returns has ended with "stop". "length" is the model's own
    limit: the reply counts as complete.
    """

    def __init__(self, finish_reason: Literal["stop", "length"]) -> None:
        super().__init__(finish_reason)
        self.finish_reason = finish_reason


Responder = Callable[[Conversation], AsyncIterator[str]]
"""A function that streams a reply as deltas.

It runs in a task of its own that no client can cancel. It is closed (`aclose()`, so
GeneratorExit or CancelledError at its await) when the reply is stopped; what it gave
until then is kept. It raises `viva_server.ResponderError` when the model fails; any
other exception is taken as an unretryable failure and logged.
"""
