"""Producing a reply: the conversation loaded, its responder run to an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus

from viva_server.chat.history import shortening
from viva_server.chat.reply import LiveReply
from viva_server.config import Config
from viva_server.errors import RefusedError, ResponderError, StoreError
from viva_server.responders import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    Responder,
)
from viva_server.responders.text import Storable
from viva_server.store.driver.database import Database
from viva_server.store.replies import NewTurn, load_history

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.5


async def produce(
    config: Config,
    database: Database,
    responder: Responder,
    reply: LiveReply,
    turn: NewTurn,
    mode: str | None,
) -> None:
    """Generate the reply of a stored turn; it ends whatever happens here."""
    try:
        stored = await _load_history(database, reply, turn, config)
        conversations = (
            Conversation(
                messages=messages,
                session_id=turn.session_id,
                user_id=turn.person.id,
                channel=turn.person.channel,
                modo=mode,
            )
            for messages in shortening(stored, turn.person.channel)
        )
        if reply.end_reason is None:
            await generate(
                reply, responder, conversations, seconds=config.reply_seconds
            )
    finally:
        reply.end("upstream_error", "responder_failed")


async def _load_history(
    database: Database, reply: LiveReply, turn: NewTurn, config: Config
) -> tuple[ConversationMessage, ...]:
    """Load the conversation, also after the database has been away for a while.

    Empty where the reply has ended meanwhile.
    """
    while reply.end_reason is None:
        try:
            return await load_history(
                database,
                turn.session_id,
                before_seq=reply.seq,
                messages=config.history_messages,
                chars=config.history_chars,
                channel=turn.person.channel,
            )
        except StoreError as error:
            logger.debug("A reply waits for its history: %s", error)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    return ()


async def generate(
    reply: LiveReply,
    responder: Responder,
    conversations: Iterable[Conversation],
    *,
    seconds: float,
) -> None:
    """Feed a reply from its responder until either ends; the responder is closed then.

    The first conversation counts; the next one is tried where the model's server
    refuses it (400) without a word of text.

    Asks for the reply's end before it returns, also when it is cancelled. The reply's
    closing does not wait for the responder's: one that refuses to be cancelled holds
    this task only.
    """
    reply.on_end = _canceller()
    try:
        async with asyncio.timeout(seconds):
            await _feed(reply, responder, conversations)
    except TimeoutError:
        reply.end("limit", "reply_too_slow")
    except asyncio.CancelledError:
        if reply.end_reason is None:
            raise
    finally:
        reply.on_end = None
        reply.end("upstream_error", "responder_failed")


def _canceller() -> Callable[[], None]:
    """Make what cancels the running task, but not from within itself."""
    task = asyncio.current_task()
    assert task is not None, "called by a coroutine"

    def cancel() -> None:
        if asyncio.current_task() is not task:
            task.cancel()

    return cancel


async def _feed(
    reply: LiveReply, responder: Responder, conversations: Iterable[Conversation]
) -> None:
    """Feed the reply and ask for the end that the responder came to."""
    storable = Storable()
    try:
        await _pull_accepted(reply, responder, conversations, storable)
    except EndOfReply as end:
        reply.feed(storable.flush())
        reply.end(end.finish_reason, usage=end.usage)
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


async def _pull_accepted(
    reply: LiveReply,
    responder: Responder,
    conversations: Iterable[Conversation],
    storable: Storable,
) -> None:
    refused: RefusedError | None = None
    for conversation in conversations:
        if refused is not None:
            logger.warning(
                "Asking the model again with %d messages", len(conversation.messages)
            )
        try:
            return await _pull(reply, responder, conversation, storable)
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST or reply.has_text:
                raise
            refused = error
    assert refused is not None, "there is a conversation"
    raise refused


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
            if reply.end_reason is not None:
                return
            if reply.is_full:
                await reply.room()
    finally:
        # An iterator of a host need not be a generator.
        if (close := getattr(deltas, "aclose", None)) is not None:
            await close()
