"""News of a send counts in whatever order it and Evolution's answer come."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.people import (
    LID,
    PHONE,
    add_turns,
    begin_send,
    finish_send,
    receive,
    rows,
    webhook,
    written,
)
from tests.postgres import run_sql
from viva_server.counters import WhatsAppCounters
from viva_server.store.driver.database import Database
from viva_server.whatsapp.conversation.outbox import Send
from viva_server.whatsapp.conversation.updates import Updates
from viva_server.whatsapp.rules import Rules

_JID = f"{PHONE}@s.whatsapp.net"
_PAUSE = "SELECT jid, paused_until > now() FROM viva.whatsapp_chats"
_SEND = "SELECT state, message_id, receipt FROM viva.outbox"


def receipt(status: str) -> Any:
    return webhook(
        "messages.update", {"keyId": "S1", "remoteJid": _JID, "status": status}
    )


def own(text: str, *, number: int = 1, at: float | None = None, **key: str) -> Any:
    return webhook(
        "send.message",
        {
            "key": {"remoteJid": _JID, "fromMe": True, "id": f"S{number}", **key},
            "message": {"conversation": text},
            "messageTimestamp": int(at or time.time()),
        },
    )


async def told(database: Database, *deliveries: Any) -> WhatsAppCounters:
    """Deliver and apply."""
    await receive(database, deliveries)
    return await applied(database)


async def applied(database: Database) -> WhatsAppCounters:
    """Apply what is pending now, which may make more of it so; gives the counts."""
    counters = WhatsAppCounters()
    await Updates(database, Rules(), counters).step()
    return counters


async def answered(database: Database, owner: str, send: Send) -> None:
    await finish_send(
        database, owner, send, state="sent", outcome="sent", message_id="S1"
    )


async def test_a_receipt_of_failure_is_counted_as_a_dead_send_once(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    owner, send = await begin_send(database, database_url, "Resposta")
    await answered(database, owner, send)
    counted = await told(database, receipt("FAILED"), receipt("ERROR"))
    assert counted.sends["dead"] == 1
    counted = await told(database, receipt("FAILED"))
    assert counted.sends["dead"] == 0


@pytest.mark.parametrize("proof", ["answer", "event"])
async def test_a_receipt_that_comes_before_its_send_is_known_counts(
    database: Database, database_url: str, proof: str
) -> None:
    await receive(database, [written("oi")])
    owner, send = await begin_send(database, database_url, "Resposta")
    await told(database, receipt("READ"))
    assert rows(database_url, _SEND) == [("sending", None, None)]
    if proof == "answer":
        await answered(database, owner, send)
    else:
        await told(database, own("Resposta"))
    await applied(database)
    assert rows(database_url, _SEND) == [("sent", "S1", "READ")]


async def test_an_answer_behind_the_event_that_proved_the_send_changes_nothing(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    owner, send = await begin_send(database, database_url, "Resposta")
    await told(database, own("Resposta"))
    await finish_send(
        database, owner, send, state="unknown", outcome="unknown", error="timeout"
    )
    assert rows(database_url, _SEND) == [("sent", "S1", None)]


async def test_an_own_message_of_a_known_id_pauses_nothing_whatever_its_text(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    owner, send = await begin_send(database, database_url, "Resposta")
    await answered(database, owner, send)
    await told(database, own("*Loja:* Resposta"))
    assert rows(database_url, _PAUSE) == [(_JID, None)]


async def test_a_part_may_be_sent_for_an_hour(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    await begin_send(database, database_url, "Resposta")
    minutes = "extract(EPOCH FROM expires_at - created_at) / 60"
    assert rows(database_url, f"SELECT round({minutes}) FROM viva.outbox") == [(60,)]


async def test_an_echo_that_is_faster_than_the_answer_pauses_nothing(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    owner, send = await begin_send(database, database_url, "Resposta")
    await told(database, own("*Loja:* Resposta"))
    assert rows(database_url, _PAUSE) == [(_JID, None)]
    await answered(database, owner, send)
    await applied(database)
    assert rows(database_url, _PAUSE) == [(_JID, None)]
    assert rows(database_url, "SELECT 1 FROM viva.inbox WHERE is_pending") == []


@pytest.mark.parametrize(("seconds", "is_paused"), [(2, None), (5, True)])
async def test_a_greeting_behind_a_message_whose_turn_runs_pauses_nothing(
    database: Database, database_url: str, seconds: int, is_paused: bool | None
) -> None:
    await receive(database, [written("oi")])
    sent_at = int(time.time()) - 10
    run_sql(
        database_url,
        f"UPDATE viva.whatsapp_messages SET sent_at = to_timestamp({sent_at})",
    )
    add_turns(database_url, "", state="running")
    await told(database, own("Bem-vindo!", at=sent_at + seconds))
    assert rows(database_url, _PAUSE) == [(_JID, is_paused)]


async def test_a_person_who_answers_under_a_lid_pauses_the_phones_chat(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi", chat=f"{LID}@lid", remoteJidAlt=_JID)])
    run_sql(database_url, "UPDATE viva.whatsapp_messages SET sent_at = '2020-01-01'")
    await told(database, own("Sou a Maria", remoteJid=f"{LID}@lid"))
    assert (_JID, True) in rows(database_url, _PAUSE)


async def test_an_echo_under_a_lid_settles_what_was_sent_to_the_phone(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi", chat=f"{LID}@lid", remoteJidAlt=_JID)])
    await begin_send(database, database_url, "Resposta")
    await told(database, own("Resposta", remoteJid=f"{LID}@lid"))
    assert rows(database_url, _SEND) == [("sent", "S1", None)]


async def test_an_older_answer_that_is_told_later_does_not_shorten_the_pause(
    database: Database, database_url: str
) -> None:
    await told(database, own("sim"))
    before = rows(database_url, "SELECT paused_until FROM viva.whatsapp_chats")
    await told(database, own("bom dia", number=2, at=time.time() - 1000))
    assert rows(database_url, "SELECT paused_until FROM viva.whatsapp_chats") == before


async def test_a_second_delivery_of_what_is_applied_is_no_work(
    database: Database, database_url: str
) -> None:
    at = time.time()
    await told(database, own("sim", at=at))
    assert await receive(database, [own("sim", at=at)]) == [False]
    assert rows(database_url, "SELECT 1 FROM viva.inbox WHERE is_pending") == []
