"""A person who is erased gets nothing any more, and nothing of it is written."""

from __future__ import annotations

import asyncio

from tests.fakes.evolution import INSTANCE, PERSON
from tests.integration.whatsapp.lab import lab, row
from tests.people import PHONE, dump, erase
from tests.waiting import until
from viva_server.store.driver.database import Database
from viva_server.store.people import whatsapp_subject

_CANARY = "canary"
_SUBJECT = whatsapp_subject(f"{INSTANCE}/{PHONE}")
_LID = "103899771998284@lid"
_OTHER = "5521933334444@s.whatsapp.net"


def left_of_the_person(database_url: str) -> list[str]:
    text = dump(database_url)
    return [each for each in (_CANARY, PHONE, _LID) if each in text]


async def test_nothing_is_left_of_a_person_who_was_answered(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as room:
        room.answers.text = f"{_CANARY} answer"
        theirs = row(
            f"{_CANARY} question", "Q1", at=2e9, remoteJid=_LID, remoteJidAlt=PERSON
        )
        room.upsert(theirs)
        await room.sent(1)
        room.evolution.acknowledge(room.evolution.sent[0], "READ")
        room.answers.text = "of another"
        room.receive("another's", jid=_OTHER)
        await room.sent(2)
        await room.applied()

        await erase(database, _SUBJECT)
        assert left_of_the_person(database_url) == []
        kept = "SELECT count(*) FROM viva.{}"
        for table, number in (
            ("whatsapp_messages", 1),
            ("whatsapp_turns", 1),
            ("outbox", 1),
            ("whatsapp_chats", 1),
            ("whatsapp_lids", 0),
            ("messages", 2),
        ):
            assert room.rows(kept.format(table)) == [(number,)], table

        # Late deliveries of the same events: the question's and the answer's.
        room.upsert(theirs)
        for stored in room.evolution.stored[INSTANCE]:
            if stored["key"]["remoteJid"] == PERSON:
                room.upsert({**stored, "status": "PENDING"}, "send.message")
        await room.applied()
        room.receive("another's again", jid=_OTHER)
        await room.sent(3)
        assert left_of_the_person(database_url) == []

        # A new message is a new event.
        room.upsert(row("I am back", "Q2", at=2e9))
        await room.sent(4)
        assert room.answers.seen[-1].messages[0].content == "I am back"


async def test_a_chat_that_is_worked_on_is_stopped_first(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as room:
        room.answers.is_endless = True
        room.receive(f"{_CANARY} question")
        await until(lambda: room.rows("SELECT 1 FROM viva.live_replies"))

        await erase(database, _SUBJECT)

        assert left_of_the_person(database_url) == []
        await asyncio.sleep(2)  # above the second after which a turn runs again
        assert left_of_the_person(database_url) == []
        assert room.texts == []


async def test_a_message_that_waits_is_not_answered_any_more(
    database_url: str, database: Database
) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=1.5) as room:
        room.receive(f"{_CANARY} question")
        await room.evolution.settled()

        await erase(database, _SUBJECT)
        await asyncio.sleep(2.5)

        assert left_of_the_person(database_url) == []
        assert room.answers.seen == []


async def test_a_send_is_waited_for_and_one_that_would_be_made_again_is_not(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as room:
        room.evolution.script("503")
        room.receive(f"{_CANARY} question")
        await until(
            lambda: room.rows("SELECT 1 FROM viva.outbox WHERE attempts <> '[]'")
        )

        await erase(database, _SUBJECT)
        await asyncio.sleep(2.5)

        assert left_of_the_person(database_url) == []
        assert room.texts == []
