"""An export has everything of a person, of one moment, and nothing of others."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest

from tests.people import (
    LID,
    PHONE,
    add_live_reply,
    add_replaced,
    add_sessions,
    add_turns,
    receive,
    rows,
    webhook,
    written,
)
from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.store.export import export_person
from viva_server.store.people import (
    Subject,
    web_subject,
    whatsapp_subject,
    with_addresses,
)

_COLUMNS = (
    "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = 'viva' AND table_name IN ('sessions', 'messages')"
)


async def exported(database: Database, subject: Subject) -> list[dict[str, Any]]:
    records = export_person(database, subject, query_seconds=5)
    async with aclosing(records):
        return [record async for record in records]


async def test_it_has_sessions_messages_and_keys_of_nobody_else(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "bia", text="of bia")
    [first] = add_sessions(database_url, "ana", text="of ana", idle_days=2)
    [second] = add_sessions(database_url, "ana", text="of ana")

    records = await exported(database, web_subject("ana"))

    kinds = [(r["type"], r.get("session_id") or r["id"]) for r in records[:6]]
    assert kinds == [
        (kind, session)
        for session in (first, second)
        for kind in ("session", "message", "message")
    ]
    assert [r["type"] for r in records[6:]] == ["idempotency_key"] * 2
    assert [r["content"] for r in records[1:3]] == ["of ana 1", "of ana 2"]
    assert "of bia" not in str(records)


async def test_it_has_replies_that_others_have_replaced(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana")
    add_replaced(database_url, session, "replaced")

    _, replaced, _, newest, _ = await exported(database, web_subject("ana"))

    assert (replaced["content"], replaced["seq"]) == ("replaced 1", -1)
    assert replaced["replaced_seq"] == newest["seq"] == 2
    assert replaced["meta"] == {"replaced_by": newest["id"]}


async def test_it_has_every_column(database: Database, database_url: str) -> None:
    add_sessions(database_url, "ana")
    session, message, *_ = await exported(database, web_subject("ana"))

    for table, column in rows(database_url, _COLUMNS):
        assert column in {"sessions": session, "messages": message}[table]
    assert message["meta"] == {"contexto_len": 3}


async def test_a_live_reply_has_the_text_that_is_committed(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana", messages=1)
    add_live_reply(database_url, "ana", session, "as far as")

    reply = (await exported(database, web_subject("ana")))[2]

    assert (reply["status"], reply["content"]) == ("streaming", "as far as")


async def test_pages_leave_out_nothing_and_repeat_nothing(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", messages=10_001)
    add_sessions(database_url, "ana", sessions=401, messages=1)

    records = await exported(database, web_subject("ana"))

    ids = [r["id"] for r in records if r["type"] in {"session", "message"}]
    assert len(ids) == len(set(ids)) == 1 + 10_001 + 401 + 401
    long = [r["seq"] for r in records if r["type"] == "message"]
    assert set(long) == set(range(1, 10_002))


async def test_it_is_of_one_moment(database: Database, database_url: str) -> None:
    add_sessions(database_url, "ana", sessions=3, messages=300)
    records = export_person(database, web_subject("ana"), query_seconds=5)
    async with aclosing(records):
        seen = [await anext(records)]
        run_sql(database_url, "DELETE FROM viva.sessions")
        seen += [record async for record in records]

    assert [r["type"] for r in seen].count("message") == 900


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (f"loja/{PHONE}", {"of mine", "in a group", "by lid"}),
        (f"loja/{LID}@lid", {"of mine", "in a group", "by lid"}),
    ],
)
async def test_of_whatsapp_it_has_the_deliveries_of_a_person(
    database: Database, name: str, texts: set[str]
) -> None:
    group = {"participant": f"{PHONE}@s.whatsapp.net"}
    jid = f"{PHONE}@s.whatsapp.net"
    await receive(
        database,
        [
            written("of mine", number=1, chat=f"{LID}@lid", remoteJidAlt=jid),
            written("in a group", number=2, chat="120363@g.us", **group),
            written("by lid", number=3, chat=f"{LID}@lid"),
            written("of another", number=4, chat="5511900000000@s.whatsapp.net"),
            written("elsewhere", number=5, instance="outra"),
            webhook("connection.update", {"state": "open"}),
        ],
    )

    subject = await with_addresses(database, whatsapp_subject(name))
    records = await exported(database, subject)

    found = [r for r in records if r["type"] == "delivery"]
    assert {r["form"]["text"] for r in found} == texts
    assert {r["body"]["data"]["message"]["conversation"] for r in found} == texts


async def test_of_whatsapp_it_has_the_queue_with_what_was_sent(
    database: Database, database_url: str
) -> None:
    other = "5511900000000@s.whatsapp.net"
    mine = [written(f"mine {n}", number=n) for n in range(250)]
    await receive(database, [*mine, written("other", number="X", chat=other)])
    add_turns(database_url, "what was sent")

    subject = await with_addresses(database, whatsapp_subject(f"loja/{PHONE}"))
    records = await exported(database, subject)

    by_type = Counter(r["type"] for r in records)
    assert by_type == {
        "whatsapp_chat": 1,
        "whatsapp_message": 250,
        "whatsapp_turn": 250,
        "whatsapp_send": 250,
        "delivery": 250,
    }
    texts = {r["text"] for r in records if r["type"] == "whatsapp_message"}
    assert texts == {f"mine {n}" for n in range(250)}
    sends = {r["turn_id"]: r["text"] for r in records if r["type"] == "whatsapp_send"}
    turns = {r["id"] for r in records if r["type"] == "whatsapp_turn"}
    assert sends == dict.fromkeys(turns, "what was sent")
    assert "other" not in str(records)


async def test_of_whatsapp_it_has_the_sessions_under_every_address(
    database: Database, database_url: str
) -> None:
    jid = f"{PHONE}@s.whatsapp.net"
    lid = f"{LID}@lid"
    await receive(database, [written("oi", chat=lid, remoteJidAlt=jid)])
    for person in (f"loja/{PHONE}", f"loja/{LID}", f"loja/{lid}", f"outra/{PHONE}"):
        add_sessions(database_url, person, channel="whatsapp")

    subject = await with_addresses(database, whatsapp_subject(f"loja/{PHONE}"))
    records = await exported(database, subject)

    people = [r["person"] for r in records if r["type"] == "session"]
    assert sorted(people) == [f"loja/{LID}", f"loja/{lid}", f"loja/{PHONE}"]


@pytest.mark.parametrize(
    "name", ["loja", "/5511", "loja/", "loja/55 11", "loja/ana@lid", "loja/123@g.us"]
)
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="INSTANCE/PHONE"):
        whatsapp_subject(name)
