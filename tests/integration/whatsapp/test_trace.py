"""A trace shows each delivery of a message and each try to answer it."""

from __future__ import annotations

from tests.people import add_live_reply, add_sessions, add_turns, receive, written
from tests.postgres import run_sql
from viva_server.api.operator import load_trace
from viva_server.store.driver.database import Database


async def test_a_trace_has_each_delivery_and_each_try(
    database: Database, database_url: str
) -> None:
    for _ in range(3):
        await receive(database, [written("oi")])
    add_turns(database_url, "", state="running")
    [session] = add_sessions(database_url, "ana")
    cut = add_live_reply(database_url, "ana", session, "cut")
    run_sql(
        database_url,
        f"UPDATE viva.whatsapp_turns SET cut_reply_ids = '{{{cut}}}';"
        " UPDATE viva.whatsapp_messages SET edited_at = now(), deleted_at = now()",
    )
    trace = await load_trace(database, "M1")
    assert trace is not None
    [delivery] = trace.deliveries
    assert (delivery.deliveries, len(delivery.redelivered_at)) == (3, 2)
    [message] = trace.messages
    assert message.edited_at
    assert message.deleted_at
    [turn] = trace.turns
    assert [reply.id for reply in turn.replies] == [cut]
