"""What Evolution tells beside people's messages, applied to what is stored.

Each function is one statement that may be repeated: a delivery stays pending until all
of it is applied. All raise `StoreUnavailableError` and `TransientStoreError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from viva_server.store.db import Database


class Pending(NamedTuple):
    """A delivery that is not applied yet; `received_at` is epoch seconds."""

    id: str
    instance: str
    kind: str
    form: dict[str, Any]
    received_at: float


class Receipt(NamedTuple):
    """How far a sent message has come, by one delivery."""

    instance: str
    message_id: str
    status: str
    rank: int


class OwnSend(NamedTuple):
    """A part in the outbox that an own message may be."""

    id: str
    state: Literal["waiting", "sending", "unknown", "sent", "dead", "dropped"]
    same_id: bool
    same_text: bool


async def load_pending(database: Database, *, rows: int) -> list[Pending]:
    """Load deliveries that are not applied yet, oldest first."""
    found = await database.fetch("load_pending", rows=rows)
    return [Pending._make(row) for row in found]


async def drop_pending(database: Database, inbox_ids: Sequence[str]) -> None:
    """Take note that deliveries are applied, or that nothing is to be done."""
    await database.execute("drop_pending", inbox_ids=list(inbox_ids))


async def put_problem(database: Database, inbox_id: str, problem: str) -> None:
    """Put a delivery aside that cannot be applied."""
    await database.execute("put_problem", inbox_id=inbox_id, problem=problem)


async def apply_receipts(database: Database, receipts: Sequence[Receipt]) -> None:
    """Move what was sent forward; a receipt that comes late changes nothing."""
    await database.execute(
        "apply_receipts", receipts=msgspec.json.encode(receipts).decode()
    )


async def apply_edit(
    database: Database,
    instance: str,
    target_id: str,
    *,
    changed_at: float,
    text: str | None,
) -> None:
    """Record an edit of `changed_at` (epoch seconds); an older one does nothing."""
    await database.execute(
        "apply_edit",
        instance=instance,
        target_id=target_id,
        changed_at=changed_at,
        text=text,
    )


async def apply_delete(
    database: Database, instance: str, target_id: str, *, changed_at: float
) -> None:
    """Record that a person took a message back."""
    await database.execute(
        "apply_delete", instance=instance, target_id=target_id, changed_at=changed_at
    )


async def find_own_sends(
    database: Database, instance: str, jid: str, message_id: str, text: str
) -> list[OwnSend]:
    """Find what an own message may be: of its id, or without one in its chat."""
    rows = await database.fetch(
        "find_own_sends", instance=instance, jid=jid, message_id=message_id, text=text
    )
    return [OwnSend._make(row) for row in rows]


async def apply_own_send(database: Database, outbox_id: str, message_id: str) -> None:
    """Take an own message as the proof that a part was sent."""
    await database.execute("apply_own_send", outbox_id=outbox_id, message_id=message_id)


async def apply_handover(
    database: Database,
    inbox_id: str,
    instance: str,
    jid: str,
    *,
    spoken_at: float,
    handover_seconds: float,
    greeting_seconds: float,
) -> None:
    """Pause the assistant in a chat, from `spoken_at` (epoch seconds) on.

    Nothing is done once the delivery is not pending any more: an erasure was faster.
    """
    await database.execute(
        "apply_handover",
        inbox_id=inbox_id,
        instance=instance,
        jid=jid,
        spoken_at=spoken_at,
        handover_seconds=handover_seconds,
        greeting_seconds=greeting_seconds,
    )
