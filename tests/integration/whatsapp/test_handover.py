"""A person who answers by hand silences the assistant, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.dictation import Dictation
from tests.fakes.evolution import PERSON
from tests.integration.whatsapp.lab import lab, row

_PAUSED = "SELECT paused_until > now() FROM viva.whatsapp_chats"


def own(text: str, message_id: str, *, at: float, **key: Any) -> dict[str, Any]:
    return row(text, message_id, at=at, fromMe=True, **key)


@pytest.mark.parametrize("event", ["messages.upsert", "send.message"])
async def test_a_person_who_answers_pauses_the_assistant(
    database_url: str, event: str
) -> None:
    async with lab(database_url) as site:
        site.upsert(own("Sou a Maria, já te ajudo", "OWN", at=time.time()), event)
        await site.applied()
        assert site.rows(_PAUSED) == [(True,)]
        message_id = site.receive("obrigado")
        await site.evolution.settled()
        await site.stored("SELECT why_not FROM viva.whatsapp_messages", "handover")
        assert site.why_not(message_id) == "handover"
        site.rows("UPDATE viva.whatsapp_chats SET paused_until = now()")
        site.receive("e agora?")
        await site.sent()
        assert site.answers.questions == ["e agora?"]


async def test_a_greeting_is_no_person(database_url: str) -> None:
    async with lab(database_url) as site:
        now = time.time()
        site.upsert(row("oi", "IN", at=now - 5))
        await site.evolution.settled()
        site.upsert(own("Bem-vindo à loja!", "GREETING", at=now - 3))
        await site.sent()
        await site.applied()
        assert site.rows(_PAUSED) == [(None,)]


async def test_a_greeting_that_is_told_before_its_message_is_none_either(
    database_url: str,
) -> None:
    async with lab(database_url) as site:
        now = time.time()
        site.upsert(own("Bem-vindo à loja!", "GREETING", at=now - 3))
        await site.applied()
        site.upsert(row("oi", "IN", at=now - 4))
        await site.sent()
        assert site.rows(_PAUSED) == [(None,)]


async def test_what_this_server_sent_pauses_nothing(database_url: str) -> None:
    async with lab(database_url) as site:
        site.evolution.echoes_upserts = True
        for number in (1, 2):
            site.receive("oi")
            await site.sent(number)
            await site.applied()
        assert site.rows(_PAUSED) == [(None,)]


async def test_a_late_report_of_an_old_answer_pauses_nothing(database_url: str) -> None:
    async with lab(database_url) as site:
        site.upsert(own("bom dia", "OWN", at=time.time() - 3600))
        await site.applied()
        site.receive("oi")
        await site.sent()


async def test_a_reply_that_is_made_meanwhile_is_dropped(database_url: str) -> None:
    dictation = Dictation()
    async with lab(database_url, respond=dictation) as site:
        site.receive("oi", at=time.time() - 10)
        reply = await dictation.begun()
        site.upsert(own("Eu respondo", "OWN", at=time.time()))
        await site.applied()
        reply.say("tarde demais")
        reply.end()
        await site.stored("SELECT state, error FROM viva.outbox", "dropped", "handover")
        assert site.texts == []


async def test_a_pause_of_one_chat_is_none_of_another(database_url: str) -> None:
    async with lab(database_url) as site:
        site.upsert(own("oi", "OWN", at=time.time()))
        await site.applied()
        other = "5511900000001@s.whatsapp.net"
        site.receive("oi", jid=other)
        await site.sent()
        assert [sent.jid for sent in site.evolution.sent] == [other]
        assert other != PERSON


async def test_handover_can_be_switched_off(database_url: str) -> None:
    async with lab(database_url, whatsapp_handover_seconds=0.0) as site:
        site.upsert(own("oi", "OWN", at=time.time()))
        await site.applied()
        site.receive("oi")
        await site.sent()
        await asyncio.sleep(0)
