"""Asking a responder in a test, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.fakes.model import FakeModel
from viva_server.errors import ResponderError
from viva_server.responders import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    OpenAIResponder,
    Responder,
)


@dataclass(slots=True)
class Reply:
    """What a responder gave; `end` is a finish reason or an error's code."""

    deltas: list[str] = field(default_factory=list)
    end: str = "stop"
    error: ResponderError | None = None

    @property
    def text(self) -> str:
        return "".join(self.deltas)


def conversation(*texts: str) -> Conversation:
    """The user's and the assistant's messages in turn, the user's last."""
    messages = [
        ConversationMessage("assistant" if number % 2 else "user", text)
        for number, text in enumerate(reversed(texts))
    ]
    return Conversation(
        messages=tuple(reversed(messages)), session_id="s", user_id="u", channel="web"
    )


def asking(
    session: aiohttp.ClientSession, model: FakeModel, **settings: Any
) -> OpenAIResponder:
    """Make a responder that asks a fake model; limits are far away unless given."""
    limits: dict[str, Any] = {"first_token_seconds": 30.0, "idle_seconds": 30.0}
    return OpenAIResponder(
        session, base_url=model.url, model="fake", **(limits | settings)
    )


async def collect(responder: Responder, asked: Conversation | None = None) -> Reply:
    """Take the whole reply, however it ends."""
    reply = Reply()
    try:
        async for delta in responder(asked or conversation("oi")):
            reply.deltas.append(delta)
    except EndOfReply as end:
        reply.end = end.finish_reason
    except ResponderError as error:
        reply.end, reply.error = error.code, error
    return reply
