"""Applying what Evolution tells: receipts, edits, deletes, and own messages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from viva_server.errors import (
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store import whatsapp_events as store
from viva_server.store.db import Database
from viva_server.store.whatsapp_events import Pending, Receipt
from viva_server.whatsapp import rules
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_BATCH = 200


class News:
    """Applies pending deliveries. Every step may be repeated, by any process."""

    def __init__(self, database: Database, judge: Rules) -> None:
        self._database = database
        self._rules = judge

    async def step(self) -> bool:
        """Apply the oldest deliveries; gives whether there may be more at once.

        Raises:
            StoreUnavailableError, TransientStoreError: what is not applied stays
                pending.
        """
        pending = await store.load_pending(self._database, rows=_BATCH)
        statuses = [each for each in pending if each.kind == "status"]
        others = [each for each in pending if each.kind != "status"]
        await self._apply_statuses(statuses)
        applied = [each for each in others if await self._is_applied(each)]
        if applied:
            ids = [each.id for each in applied]
            await store.drop_pending(self._database, ids)
        return len(pending) == _BATCH and bool(applied or statuses)

    async def _apply_statuses(self, pending: Sequence[Pending]) -> None:
        """Apply receipts together or, where the database refuses one, singly."""
        if not pending:
            return
        receipts = [receipt for each in pending for receipt in _receipts(each)]
        try:
            if receipts:
                await store.apply_receipts(self._database, receipts)
        except (StoreUnavailableError, TransientStoreError):
            raise
        except StoreError as error:
            if len(pending) == 1:
                await self._put_aside(pending[0], error)
                return
            for each in pending:
                await self._apply_statuses([each])
            return
        await store.drop_pending(self._database, [each.id for each in pending])

    async def _is_applied(self, pending: Pending) -> bool:
        """Apply one delivery; False: later, or never."""
        try:
            forms = rules.forms_of(cast("NormalForm", pending.form))
            return all([await self._apply(pending, form) for form in forms])
        except (StoreUnavailableError, TransientStoreError):
            raise
        except Exception as error:
            logger.exception("An event of WhatsApp cannot be applied")
            await self._put_aside(pending, error)
            return False

    async def _put_aside(self, pending: Pending, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"[:500]
        await store.put_problem(self._database, pending.id, problem)

    async def _apply(self, pending: Pending, form: NormalForm) -> bool:
        target = form.get("target_id")
        if form["kind"] == "edit" and target:
            await store.apply_edit(
                self._database,
                pending.instance,
                target,
                changed_at=pending.received_at,
                text=form.get("text"),
            )
        elif form["kind"] == "delete" and target:
            await store.apply_delete(
                self._database,
                pending.instance,
                target,
                changed_at=pending.received_at,
            )
        elif rules.is_own(form):
            return await self._apply_own(pending, form)
        return True

    async def _apply_own(self, pending: Pending, form: NormalForm) -> bool:
        """Take an own message as an echo or as a person's; False: it is not clear yet.

        While a part is being sent in the chat, an own message may be its echo under an
        id that the answer has yet to tell.
        """
        instance, message_id = pending.instance, form["message_id"]
        sends = await store.find_own_sends(
            self._database,
            instance,
            form["chat"],
            message_id,
            form.get("text", ""),
        )
        if any(send.same_id for send in sends):
            return True
        for send in sends:
            if send.same_text:
                await store.apply_own_send(self._database, send.id, message_id)
                return True
        if any(send.state == "sending" for send in sends):
            return False
        await self._hand_over(pending, form)
        return True

    async def _hand_over(self, pending: Pending, form: NormalForm) -> None:
        seconds = self._rules.handover_seconds
        if not seconds or not rules.may_hand_over(form):
            return
        spoken_at = min(form.get("timestamp", pending.received_at), pending.received_at)
        await store.apply_handover(
            self._database,
            pending.id,
            pending.instance,
            form["chat"],
            spoken_at=float(spoken_at),
            handover_seconds=seconds,
            greeting_seconds=rules.GREETING_SECONDS,
        )


def _receipts(pending: Pending) -> list[Receipt]:
    return [
        Receipt(pending.instance, form["message_id"], form["status_value"], rank)
        for form in rules.forms_of(cast("NormalForm", pending.form))
        if form["kind"] == "status"
        and "message_id" in form
        and (rank := rules.receipt_rank(form.get("status_value")))
    ]
