"""Sending what is in the outbox: once, in order, never blindly again."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from viva_server.errors import StoreError
from viva_server.store import outbox as store
from viva_server.store.db import Database
from viva_server.store.outbox import Send
from viva_server.store.processes import SETTLE_SECONDS
from viva_server.whatsapp.counters import WhatsAppCounters
from viva_server.whatsapp.evolution.outcomes import SendOutcome
from viva_server.whatsapp.rules import retry_seconds

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5


class Sender(Protocol):
    """Who sends a text; `EvolutionClient` is one."""

    async def send_text(self, instance: str, jid: str, text: str) -> SendOutcome:
        """Send it once and say what became of it."""


class Outbox:
    """Sends claimed parts and writes what became of them."""

    def __init__(
        self, database: Database, sender: Sender, counters: WhatsAppCounters
    ) -> None:
        self._database = database
        self._sender = sender
        self._counters = counters

    async def send(self, owner: str, send: Send) -> None:
        """Send one part of this owner.

        A cancellation in the request leaves it as being sent; whoever releases or
        buries this owner marks it as of unknown outcome.
        """
        if send.is_expired:
            await self._finish(owner, send, SendOutcome("dead", reason="expired"))
        elif send.is_paused:
            # A person answers in this chat by now.
            await self._write(owner, send, "dropped", SendOutcome("dead"), "handover")
        else:
            outcome = await self._sender.send_text(send.instance, send.jid, send.text)
            self._counters.send(outcome.kind)
            await self._finish(owner, send, outcome)

    async def _finish(self, owner: str, send: Send, outcome: SendOutcome) -> None:
        if outcome.kind == "dead":
            logger.error("Part %s is not sent: %s", send.id, outcome.reason)
        state: store.SendState = outcome.kind if outcome.kind != "retry" else "waiting"
        await self._write(owner, send, state, outcome, outcome.reason or None)

    async def _write(
        self,
        owner: str,
        send: Send,
        state: store.SendState,
        outcome: SendOutcome,
        error: str | None,
    ) -> None:
        """Write the outcome, for as long as the database takes."""
        due_seconds = 0.0
        if outcome.kind == "retry":
            due_seconds = retry_seconds(send.attempts, outcome.retry_after)
        elif outcome.kind == "unknown":
            due_seconds = SETTLE_SECONDS
        while True:
            try:
                await store.finish_send(
                    self._database,
                    owner,
                    send,
                    state=state,
                    outcome=outcome.kind if state != "dropped" else state,
                    error=error,
                    message_id=outcome.message_id,
                    due_seconds=due_seconds,
                )
            except StoreError as failure:
                logger.warning("The outbox waits for the database: %s", failure)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            return
