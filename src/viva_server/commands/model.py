"""The check of the model, for `viva-server doctor`: it is asked a question."""

from __future__ import annotations

import asyncio
import logging

from viva_server.config import Config
from viva_server.errors import ConfigError, RefusedError, ResponderError
from viva_server.responders import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    OpenAIResponder,
    model_session,
)
from viva_server.store.checks import Check

_NAME = "model"
_SECONDS = 60.0
_PROMPT = "Answer in one word."
_QUESTION = Conversation(
    messages=(ConversationMessage("user", "Say: ok"),),
    session_id="doctor",
    user_id="doctor",
    channel="web",
)


async def check_model(config: Config) -> Check:
    """Ask the model a short question, which costs a few tokens."""
    if config.model_url is None:
        return Check(_NAME, True, "none is set: the built-in responder answers")
    host = f"{config.model_url.host}:{config.model_url.port}"
    habits: set[str] = set()
    # The check says all that the responder would log.
    logging.getLogger("viva_server.responders").setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(_SECONDS):
            end = await _ask(config, habits)
    except TimeoutError:
        return Check(_NAME, False, f"{host} does not end its answer in {_SECONDS:g} s")
    except ConfigError as error:
        return Check(_NAME, False, str(error))
    except ResponderError as error:
        return Check(_NAME, False, _failure(host, error))
    seen = "; ".join(sorted(habits)) or "nothing unusual"
    detail = f"{host} answers as {config.model_name} ({end}); its habits: {seen}"
    return Check(_NAME, True, detail)


async def _ask(config: Config, habits: set[str]) -> str:
    """Ask, and say why the reply ended; collect what the server does."""
    async with model_session() as session:
        responder = OpenAIResponder.of(
            config,
            session,
            system_prompt=_PROMPT,
            on_end=lambda completion: habits.update(completion.habits),
        )
        try:
            async for _ in responder(_QUESTION):
                pass
        except EndOfReply as end:
            return end.finish_reason
    return "stop"


def _failure(host: str, error: ResponderError) -> str:
    hint = ""
    if isinstance(error, RefusedError):
        match error.status:
            case 401 | 403:
                hint = ": see VIVA_MODEL_API_KEY and VIVA_MODEL_HEADERS"
            case 404 | 405:
                hint = ": see VIVA_MODEL_NAME, and whether VIVA_MODEL_URL ends as …/v1"
    told = f" ({error.detail})" if error.detail else ""
    return f"{host}: {error}{told}{hint}"
