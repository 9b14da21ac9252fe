"""An erasure leaves nothing of a person, all of others, and may be cut anywhere."""

from __future__ import annotations

import asyncio

from tests.integration.chat.rooms import running
from tests.people import (
    TABLES,
    add_live_reply,
    add_replaced,
    add_sessions,
    count,
    dump,
    erase,
)
from tests.postgres import run_sql
from viva_server.chat.recovery import recovering
from viva_server.store.driver.database import Database
from viva_server.store.erasure import Erasure
from viva_server.store.people import web_subject

_CANARY = "canary"


async def test_nothing_of_the_person_is_left_and_all_of_the_others(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", sessions=3, messages=1500, text=_CANARY)
    add_sessions(database_url, "ana", channel="whatsapp", text="another ana")
    add_sessions(database_url, "bia", text="of bia")
    [session] = add_sessions(database_url, "ana", text=_CANARY)
    add_replaced(database_url, session, _CANARY, replies=1200)

    counts = await erase(database, web_subject("ana"))

    assert counts == {"sessions": 4, "messages": 5702, "deliveries": 0}
    text = dump(database_url)
    assert _CANARY not in text
    assert text.count("of bia") == text.count("another ana") == 3


async def test_a_live_reply_of_a_dead_process_is_closed_first(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana", messages=1)
    add_live_reply(database_url, "ana", session, _CANARY)

    async with recovering(database, is_alone=True):
        await erase(database, web_subject("ana"))

    assert all(count(database_url, table) == 0 for table in TABLES)


async def test_a_session_whose_reply_began_just_now_is_left_until_it_is_stopped(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana", messages=1)
    add_live_reply(database_url, "ana", session, "text")
    subject = web_subject("ana")
    erasure = Erasure(database, subject, advance=lambda _: None)

    assert await erasure._remove_next_session(subject.person)

    assert all(count(database_url, table) for table in TABLES if "keys" not in table)


async def test_text_that_a_late_statement_left_in_the_journal_goes_too(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana")
    run_sql(
        database_url,
        "INSERT INTO viva.journal (message_id, start, text)"
        f" SELECT id, 0, '{_CANARY}' FROM viva.messages",
    )

    await erase(database, web_subject("ana"))

    assert _CANARY not in dump(database_url)


async def test_a_live_reply_of_a_living_process_is_stopped_by_it(
    database: Database, database_url: str
) -> None:
    async with running(database_url) as process:
        await process.begin("oi")
        await erase(database, web_subject("ana"))
        assert not process.runtime.presence.local

    assert all(count(database_url, table) == 0 for table in TABLES)


async def test_a_session_that_others_hold_is_tried_again(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana")
    async with database.transaction() as transaction:
        await transaction.fetch("lock_next_session", channel="web", person="ana")
        erasing = asyncio.create_task(erase(database, web_subject("ana")))
        await asyncio.sleep(2.5)  # above the 2 s after which a lock is given up
        assert not erasing.done()

    assert (await erasing)["sessions"] == 1
