"""An erasure waits for what is under way in a person's chats, and for no more."""

from __future__ import annotations

import asyncio

from tests.people import (
    PHONE,
    add_process,
    begin_send,
    dump,
    erase,
    finish_send,
    receive,
    rows,
    written,
)
from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.store.people import whatsapp_subject

_CANARY = "canary"
_SUBJECT = whatsapp_subject(f"loja/{PHONE}")


async def test_a_send_in_flight_is_waited_for(
    database: Database, database_url: str
) -> None:
    await receive(database, [written(_CANARY)])
    owner, send = await begin_send(database, database_url, _CANARY)

    erasing = asyncio.create_task(erase(database, _SUBJECT))
    await asyncio.sleep(1.0)
    assert not erasing.done()
    assert rows(database_url, "SELECT state FROM viva.outbox") == [("sending",)]

    await finish_send(
        database, owner, send, state="sent", outcome="sent", message_id="S1"
    )
    await erasing
    assert _CANARY not in dump(database_url)
    assert PHONE not in dump(database_url)


async def test_a_chat_whose_owner_has_not_begun_a_reply_yet_is_waited_for(
    database: Database, database_url: str
) -> None:
    await receive(database, [written(_CANARY)])
    run_sql(database_url, "UPDATE viva.whatsapp_chats SET due_at = now()")
    owner = add_process(database_url)
    [row] = await database.fetch("claim_chats", owner=owner, chats=1)
    claim = {"owner": owner, "instance": row.instance, "jid": row.jid}

    erasing = asyncio.create_task(erase(database, _SUBJECT))
    await asyncio.sleep(1.0)
    assert not erasing.done()

    await database.execute("release_chat", **claim, again_seconds=None)
    await erasing
    assert _CANARY not in dump(database_url)
    assert PHONE not in dump(database_url)
