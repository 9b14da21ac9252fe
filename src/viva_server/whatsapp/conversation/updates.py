"""Applies what Evolution tells beside people's messages: receipts, edits, deletes, own.

Each statement may be repeated, by any process: a delivery stays pending until all of it
is applied.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import msgspec

from viva_server.counters import WhatsAppCounters
from viva_server.errors import StoreError, StoreUnavailableError, TransientStoreError
from viva_server.store.driver.database import Database
from viva_server.whatsapp import rules
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_BATCH = 200


class Pending(NamedTuple):
    """A delivery that is not applied yet, a row of load_pending; times are epoch."""

    id: str
    instance: str
    kind: str
    form: dict[str, Any]
    received_at: float

    @property
    def forms(self) -> list[NormalForm]:
        """The single messages or receipts of the delivery."""
        return rules.forms_of(cast("NormalForm", self.form))


class Updates:
    """Applies pending deliveries. Every step may be repeated, by any process."""

    def __init__(
        self, database: Database, judge: Rules, counters: WhatsAppCounters
    ) -> None:
        self._database = database
        self._rules = judge
        self._counters = counters

    async def step(self) -> bool:
        """Apply the oldest deliveries; gives whether there may be more at once.

        Raises:
            StoreUnavailableError, TransientStoreError: what is not applied stays
                pending.
        """
        rows = await self._database.fetch("load_pending", rows=_BATCH)
        pending = [Pending._make(row) for row in rows]
        statuses = [each for each in pending if each.kind == "status"]
        others = [each for each in pending if each.kind != "status"]
        await self._apply_statuses(statuses)
        applied = [each for each in others if await self._is_applied(each)]
        if applied:
            await self._drop(applied)
        return len(pending) == _BATCH and bool(applied or statuses)

    async def _apply_statuses(self, pending: Sequence[Pending]) -> None:
        """Apply receipts together or, where the database refuses one, singly."""
        if not pending:
            return
        receipts = [receipt for each in pending for receipt in _receipts(each)]
        try:
            if receipts:
                # A receipt that comes late changes nothing.
                moved = await self._database.fetch(
                    "apply_receipts",
                    receipts=msgspec.json.encode(receipts).decode(),
                    failed_rank=rules.FAILED_RANK,
                )
                failed = sum(row.state == "dead" for row in moved)
                self._counters.sends["dead"] += failed
        except (StoreUnavailableError, TransientStoreError):
            raise
        except StoreError as error:
            if len(pending) == 1:
                await self._put_aside(pending[0], error)
                return
            for each in pending:
                await self._apply_statuses([each])
            return
        await self._drop(pending)

    async def _drop(self, applied: Sequence[Pending]) -> None:
        ids = [each.id for each in applied]
        await self._database.execute("drop_pending", inbox_ids=ids)

    async def _is_applied(self, pending: Pending) -> bool:
        """Apply one delivery; False: later, or never."""
        try:
            return all([await self._apply(pending, form) for form in pending.forms])
        except (StoreUnavailableError, TransientStoreError):
            raise
        except Exception as error:
            logger.exception("An event of WhatsApp cannot be applied")
            await self._put_aside(pending, error)
            return False

    async def _put_aside(self, pending: Pending, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"[:500]
        await self._database.execute(
            "put_problem", inbox_id=pending.id, problem=problem
        )

    async def _apply(self, pending: Pending, form: NormalForm) -> bool:
        target = {
            "instance": pending.instance,
            "target_id": form.get("target_id"),
            "changed_at": pending.received_at,
        }
        if form["kind"] == "edit" and target["target_id"]:
            # An edit that is older than the one that is stored does nothing.
            text = form.get("text")
            await self._database.execute("apply_edit", text=text, **target)
        elif form["kind"] == "delete" and target["target_id"]:
            await self._database.execute("apply_delete", **target)
        elif rules.is_own(form):
            return await self._apply_own(pending, form)
        return True

    async def _apply_own(self, pending: Pending, form: NormalForm) -> bool:
        """Take an own message as an echo or as a person's; False: it is not clear yet.

        While a part is being sent in the chat, an own message may be its echo under an
        id that the answer has yet to tell.
        """
        message_id = form["message_id"]
        # Of its id, or without one in its chat.
        sends = await self._database.fetch(
            "find_own_sends",
            instance=pending.instance,
            jid=form["chat"],
            message_id=message_id,
            text=form.get("text", ""),
        )
        if any(send.same_id for send in sends):
            return True
        for send in sends:
            if send.same_text:
                await self._database.execute(
                    "apply_own_send", outbox_id=send.id, message_id=message_id
                )
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
        # Nothing is done once the delivery is not pending: an erasure was faster.
        await self._database.execute(
            "apply_handover",
            inbox_id=pending.id,
            instance=pending.instance,
            jid=form["chat"],
            spoken_at=float(spoken_at),
            handover_seconds=seconds,
            greeting_seconds=rules.GREETING_SECONDS,
        )


def _receipts(pending: Pending) -> list[tuple[str, str, str, int]]:
    """Give how far sent messages have come: instance, message id, status, rank."""
    return [
        (pending.instance, form["message_id"], form["status_value"], rank)
        for form in pending.forms
        if form["kind"] == "status"
        and "message_id" in form
        and (rank := rules.receipt_rank(form.get("status_value")))
    ]
