"""The way of one WhatsApp message, read from all that is stored of it."""

from __future__ import annotations

from dataclasses import dataclass

from viva_server.store.db import Database, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Rows of the queries of the same names, in the order of their times."""

    deliveries: list[Row]
    messages: list[Row]
    turns: list[Row]
    replies: list[Row]
    sends: list[Row]


async def load_trace(database: Database, message_id: str) -> Trace | None:
    """Load all that is known of a message, a person's or one that was sent.

    None if there is nothing. It takes several statements, so that a message under way
    may show its turn without the reply that has just begun.
    """
    deliveries = await database.fetch("trace_deliveries", message_id=message_id)
    messages = await database.fetch("trace_messages", message_id=message_id)
    sent = await database.fetch("find_turns_of_sent", message_id=message_id)
    if not (deliveries or messages or sent):
        return None
    turn_ids = {row.turn_id for row in (*messages, *sent)} - {None}
    turns = await database.fetch("trace_turns", turn_ids=list(turn_ids))
    reply_ids = [reply_id for turn in turns for reply_id in turn.reply_ids]
    return Trace(
        deliveries=deliveries,
        messages=messages,
        turns=turns,
        replies=await database.fetch("trace_replies", message_ids=reply_ids),
        sends=await database.fetch("trace_sends", turn_ids=list(turn_ids)),
    )
