"""A responder: any function from a conversation to an async iterator of text.

export VIVA_DATABASE_URL=postgresql://localhost/viva VIVA_JWT_SECRET=…
python examples/respond_function.py
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from aiohttp import web

import viva_server

LONGEST = 40


async def respond(conversation: viva_server.Conversation) -> AsyncIterator[str]:
    """Spell the person's message, one word at a time.

    It runs in a task of its own. A client that leaves does not end it at once; when
    the reply is stopped it gets CancelledError here, so close what you open in `finally`;
    what it gave is stored.
    """
    newest = conversation.messages[-1]  # always the user's; older ones stand before
    words = newest.content.split()
    if words == ["falhe"]:
        # The person sees a sentence of viva_server's; the code is for programs.
        raise viva_server.ResponderError("no_words_left", retryable=False)
    for word in words[:LONGEST]:
        yield f"{word}… "
        await asyncio.sleep(0.05)  # as a model would
    if len(words) > LONGEST:
        # The responder's own limit: the reply counts as complete.
        raise viva_server.EndOfReply("length")


def make_app() -> web.Application:
    app = web.Application()
    viva_server.setup(app, respond=respond)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=int(os.environ.get("PORT", "8080")))
