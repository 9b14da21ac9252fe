"""Running the responder of one reply."""

from __future__ import annotations

import asyncio
import logging

from viva_server.chat.reply import LiveReply
from viva_server.errors import ResponderError
from viva_server.responders import Conversation, EndOfReply, Responder
from viva_server.responders.text import Storable

logger = logging.getLogger(__name__)


async def generate(
    reply: LiveReply,
    responder: Responder,
    conversation: Conversation,
    *,
    seconds: float,
) -> None:
    """Feed a reply from its responder until either ends, then close the responder.

    Asks for the reply's end before it returns, also when it is cancelled. The reply's
    closing does not wait for the responder's: one that refuses to be cancelled holds
    this task only.
    """
    source = asyncio.create_task(_feed(reply, responder, conversation))
    source.add_done_callback(lambda _: reply.end("upstream_error", "responder_failed"))
    try:
        async with asyncio.timeout(seconds):
            await reply.end_asked.wait()
    except TimeoutError:
        reply.end("limit", "reply_too_slow")
    finally:
        reply.end("upstream_error", "responder_failed")
        source.cancel()
        await asyncio.wait({source})


async def _feed(
    reply: LiveReply, responder: Responder, conversation: Conversation
) -> None:
    """Feed the reply and ask for the end that the responder came to."""
    storable = Storable()
    try:
        await _pull(reply, responder, conversation, storable)
    except EndOfReply as end:
        reply.feed(storable.flush())
        reply.end(end.finish_reason)
    except ResponderError as error:
        reply.feed(storable.flush())
        reply.end("upstream_error", error.code, is_final=not error.retryable)
    except Exception:
        logger.exception("The responder of message %s failed", reply.message_id)
        reply.feed(storable.flush())
        reply.end("upstream_error", "responder_failed")
    else:
        reply.feed(storable.flush())
        reply.end("stop")


async def _pull(
    reply: LiveReply,
    responder: Responder,
    conversation: Conversation,
    storable: Storable,
) -> None:
    deltas = responder(conversation)
    try:
        async for delta in deltas:
            reply.feed(storable.feed(delta))
            if reply.is_full:
                await reply.room()
    finally:
        # An iterator of a host need not be a generator.
        if (close := getattr(deltas, "aclose", None)) is not None:
            await close()
