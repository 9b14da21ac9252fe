"""How much a process works on at once, and that a stopping one begins nothing."""

from __future__ import annotations

import asyncio

from tests.dictation import Dictation, saying
from tests.integration.whatsapp.lab import lab
from tests.waiting import until

_CHATS = [f"551191000000{number}@s.whatsapp.net" for number in range(4)]


async def test_no_more_turns_run_at_once_than_the_setting_says(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with lab(database_url, respond=dictation, whatsapp_turns=2) as site:
        for jid in _CHATS:
            site.receive("oi", jid=jid)
        first = await dictation.begun()
        await dictation.begun()
        await site.evolution.settled()
        await asyncio.sleep(1.0)
        assert len(dictation.replies) == 2
        first.say("um")
        first.end()
        await dictation.begun()
        await asyncio.sleep(0.5)
        assert len(dictation.replies) == 3


async def test_a_stopping_process_begins_no_turn_and_leaves_it_to_the_next(
    database_url: str,
) -> None:
    """The first chat's turn goes on to its end; the second one's is not touched."""
    dictation = Dictation()
    started = lab(
        database_url,
        respond=dictation,
        drain_seconds=20.0,
        whatsapp_debounce_seconds=1.0,
    )
    site = await started.__aenter__()
    site.receive("um", jid=_CHATS[0])
    reply = await dictation.begun()
    site.receive("dois", jid=_CHATS[1])
    await site.evolution.settled()
    stopping = asyncio.create_task(started.__aexit__(None, None, None))
    # Its time comes while the process waits for its turn.
    due = "SELECT count(*) FROM viva.whatsapp_chats WHERE due_at <= now()"
    await until(lambda: site.rows(due) == [(1,)])
    await asyncio.sleep(1.0)
    assert site.rows("SELECT count(*) FROM viva.whatsapp_turns") == [(1,)]
    assert not stopping.done()
    reply.say("Resposta")
    reply.end()
    await stopping
    assert len(dictation.replies) == 1
    async with lab(database_url, respond=saying("Resposta")) as next_one:
        await next_one.sent()
        assert [sent.jid for sent in next_one.evolution.sent] == [_CHATS[1]]


async def test_a_short_debounce_is_pushed_on_for_half_a_minute_at_most(
    database_url: str,
) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=1.0, worker=False) as site:
        site.receive("um")
        left = "extract(epoch FROM latest_at - clock_timestamp())"
        chat = f"SELECT {left} > 15 AND {left} <= 30 FROM viva.whatsapp_chats"
        await site.stored(chat, True)
        # As if it had gone on so for 30 seconds.
        site.rows("UPDATE viva.whatsapp_chats SET due_at = now(), latest_at = now()")
        site.receive("dois")
        await site.applied()
        messages = "SELECT count(*) FROM viva.whatsapp_messages"
        await site.stored(messages, 2)
        assert site.rows("SELECT due_at <= now() FROM viva.whatsapp_chats") == [(True,)]
