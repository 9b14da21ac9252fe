"""A turn or a send that finds no room, or no database, waits and is done once."""

from __future__ import annotations

import asyncio

import pytest

from tests.dictation import Dictation
from tests.integration.whatsapp.lab import Lab, lab
from viva_server.whatsapp.conversation import worker

_CHATS = [f"551191000000{number}@s.whatsapp.net" for number in range(2)]
_RUNS = "SELECT count(*), max(runs) FROM viva.whatsapp_turns WHERE state = 'answered'"


async def test_a_turn_without_room_for_its_reply_has_not_been_tried(
    database_url: str,
) -> None:
    """It asks each second, for longer than a turn that fails may be run again."""
    dictation = Dictation()
    async with lab(database_url, respond=dictation, live_replies=1) as site:
        site.receive("um", jid=_CHATS[0])
        first = await dictation.begun()
        site.receive("dois", jid=_CHATS[1])
        await asyncio.sleep(6.0)
        first.say("um")
        first.end()
        second = await dictation.begun()
        second.say("dois")
        second.end()
        await site.sent(2)
        assert site.texts == ["um", "dois"]
        assert site.rows(_RUNS) == [(2, 1)]


async def test_no_more_is_sent_at_once_than_the_setting_says(
    database_url: str,
) -> None:
    async with lab(database_url, whatsapp_turns=1) as site:
        site.evolution.script("hang", "hang")
        for jid in _CHATS:
            site.receive("oi", jid=jid)
        states = "SELECT string_agg(state, ' ' ORDER BY state) FROM viva.outbox"
        await site.stored(states, "sending waiting")
        await asyncio.sleep(0.5)
        assert site.rows(states) == [("sending waiting",)]


def fail_once(site: Lab, when: str) -> None:
    """Let the database undo the first statement of that kind."""
    site.rows(
        "CREATE SEQUENCE viva.failures;"
        "CREATE FUNCTION viva.fail_once() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN IF nextval('viva.failures') = 1"
        " THEN RAISE EXCEPTION 'undone' USING ERRCODE = '40001'; END IF;"
        " RETURN NEW; END $$;"
        f"CREATE TRIGGER fail_once BEFORE {when} EXECUTE FUNCTION viva.fail_once()"
    )


@pytest.mark.parametrize(
    "when",
    [
        "INSERT ON viva.whatsapp_turns FOR EACH ROW",
        "UPDATE ON viva.whatsapp_chats FOR EACH ROW WHEN (NEW.owner IS NULL)",
    ],
)
async def test_what_the_database_undid_of_a_turn_is_done_again(
    database_url: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab(database_url) as site:
        fail_once(site, when)
        site.receive("oi")
        await site.sent()
        await site.stored("SELECT owner IS NULL FROM viva.whatsapp_chats", True)
        assert site.rows("SELECT last_value > 1 FROM viva.failures") == [(True,)]
        assert site.rows(_RUNS) == [(1, 1)]
    assert "Giving back" not in caplog.text


async def test_a_turn_that_takes_long_is_not_taken_for_a_stray(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(worker, "_ORPHAN_SECONDS", 0.1)
    dictation = Dictation()
    async with lab(database_url, respond=dictation) as site:
        site.receive("oi")
        reply = await dictation.begun()
        await asyncio.sleep(1.0)
        reply.say("um")
        reply.end()
        await site.sent()
    assert "Giving back" not in caplog.text
