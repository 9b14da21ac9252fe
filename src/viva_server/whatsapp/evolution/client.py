"""The way to Evolution API's REST interface: 1.x, 2.x and evolution-go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from viva_server.errors import EvolutionError
from viva_server.whatsapp.events.json_values import as_object
from viva_server.whatsapp.evolution.dialects import (
    Generation,
    Generations,
    Post,
    other_generation,
    text_post,
    typing_post,
)
from viva_server.whatsapp.evolution.outcomes import (
    SendOutcome,
    outcome_of_answer,
    outcome_of_failure,
)
from viva_server.whatsapp.evolution.rest import Answer, EvolutionRest
from viva_server.whatsapp.evolution.stored import instance_names, read_stored

__all__ = ["EvolutionClient", "SendOutcome"]

logger = logging.getLogger(__name__)

MAX_TYPING_SECONDS: Final = 20.0
"""Evolution sleeps for the typing state in slices of 20 seconds."""


class EvolutionClient:
    """Speaks with one Evolution API; owns its connections, made when needed.

    Which body an instance wants is found out by the first send and remembered.

    Args:
        url: the base URL, with or without a path.
        api_key: the global key or an instance's; for evolution-go the instance's
            token, which alone says the instance.
        seconds: how long one request may take, connecting included.

    Raises, when made:
        ConfigError: the URL or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str, *, seconds: float = 15.0) -> None:
        self._rest = EvolutionRest(url, api_key)
        self._seconds = seconds
        self._generations = Generations()

    async def close(self) -> None:
        """Close the connections. Idempotent; a later call opens new ones."""
        await self._rest.close()

    async def send_text(self, instance: str, jid: str, text: str) -> SendOutcome:
        """Send a text once; `jid` is the whole one that the webhook named.

        Never raises but CancelledError, after which the outcome is unknown. It sends a
        second time only where the first answer says that the body's form was refused.
        """
        try:
            answer = await self._post(
                instance, lambda form: text_post(form, instance, jid, text)
            )
        except EvolutionError as error:
            outcome = outcome_of_failure(error)
        except Exception:
            logger.exception("a send by %r ended strangely", instance)
            return SendOutcome("unknown", reason="internal")
        else:
            outcome = outcome_of_answer(answer)
        if outcome.kind != "sent":
            logger.warning(
                "a send by %r: %s (%s)", instance, outcome.kind, outcome.reason
            )
        return outcome

    async def send_typing(self, instance: str, jid: str, seconds: float) -> None:
        """Show "typing…" in a chat, for 20 seconds at most; best effort.

        1.x and 2.x answer when the time is over, so it takes that long. Never raises
        but CancelledError.
        """
        # In this order, so that NaN is 0.
        seconds = min(max(0.0, seconds), MAX_TYPING_SECONDS)
        try:
            await self._post(
                instance,
                lambda form: typing_post(form, instance, jid, seconds),
                extra_seconds=seconds,
            )
        except EvolutionError as error:
            logger.debug("no typing state by %r: %s", instance, error.reason)
        except Exception:
            logger.exception("a typing state by %r ended strangely", instance)

    async def stored_messages(
        self, instance: str, since: datetime
    ) -> list[dict[str, Any]]:
        """Return what Evolution stored since a time, oldest first.

        Each is in the form of a messages.upsert's `data`, own messages among them.

        Raises:
            EvolutionError: it cannot be asked, stores nothing, or has no such route
                (evolution-go).
        """
        return await read_stored(self._rest, instance, since, self._seconds)

    async def webhook_settings(self, instance: str) -> dict[str, Any] | None:
        """Return an instance's webhook as this version stores it, None without one.

        Raises:
            EvolutionError: it cannot be asked; `not_found` from evolution-go.
        """
        answer = await self._get("webhook", "find", instance)
        return answer.body if isinstance(answer.body, dict) else None

    async def instances(self) -> list[str]:
        """Return the names of all instances that the key may see.

        Raises:
            EvolutionError: it cannot be asked.
        """
        answer = await self._get("instance", "fetchInstances")
        return instance_names(answer.body)

    async def is_go(self) -> bool:
        """Return whether evolution-go answers at the URL. Never raises.

        Cancelled, it ends at once.
        """
        try:
            answer = await self._get("server", "ok")
        except EvolutionError:
            return False
        return as_object(answer.body).get("status") == "ok"

    async def _post(
        self,
        instance: str,
        make: Callable[[Generation], Post],
        *,
        extra_seconds: float = 0.0,
    ) -> Answer:
        """Post in the form that the instance speaks; a refused form means another."""
        seconds = self._seconds + extra_seconds
        generation = self._generations.first(instance)
        tried: set[Generation] = set()
        while True:
            tried.add(generation)
            post = make(generation)
            answer = await self._rest.call(
                "POST", post.path, post.body, seconds=seconds
            )
            if answer.is_ok:
                self._generations.remember(instance, generation)
            other = other_generation(generation, answer)
            if other is None or other in tried:
                return answer
            generation = other

    async def _get(self, *path: str) -> Answer:
        answer = await self._rest.call("GET", path, seconds=self._seconds)
        if not answer.is_ok:
            outcome = outcome_of_answer(answer)
            raise EvolutionError(outcome.reason)
        return answer
