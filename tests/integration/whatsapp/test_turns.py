"""A burst is one turn, once, in order, whoever gets its webhooks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.dictation import Dictation
from tests.fakes.evolution import PERSON
from tests.integration.whatsapp.lab import Lab, lab, row
from tests.waiting import until
from viva_server.errors import RefusedError, ResponderError
from viva_server.responders import EndOfReply
from viva_server.store.driver.database import Database
from viva_server.store.operator import Dead, replay
from viva_server.whatsapp import rules
from viva_server.whatsapp.conversation import turns

LID = "123456789012345@lid"
_TURNS = "SELECT count(*), max(runs) FROM viva.whatsapp_turns WHERE state = 'answered'"


async def test_a_burst_is_one_turn_in_the_order_of_its_times(database_url: str) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=1.0) as site:
        now = time.time()
        for number in (2, 0, 1):
            site.upsert(row(f"parte {number}", f"B{number}", at=now - 10 + number))
        await site.sent()
        assert site.answers.questions == ["parte 0\nparte 1\nparte 2"]
        assert site.texts == ["Resposta 1"]


async def test_each_message_pushes_the_answer_on(database_url: str) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=1.2) as site:
        now = time.time()
        for number in range(4):
            site.upsert(row(f"parte {number}", f"B{number}", at=now - 10 + number))
            await asyncio.sleep(0.5)
        assert site.answers.seen == []
        await site.sent()
        assert len(site.answers.questions[0].splitlines()) == 4


async def test_a_chat_that_never_falls_silent_is_answered(database_url: str) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=60.0) as site:
        site.receive("um")
        await site.stored(
            "SELECT latest_at BETWEEN now() + interval '9 minutes'"
            " AND now() + interval '10 minutes' FROM viva.whatsapp_chats",
            True,
        )
        site.receive("dois")
        await site.applied()
        assert site.answers.seen == []
        # As if it had gone on so for 598 seconds.
        site.rows(
            "UPDATE viva.whatsapp_chats"
            " SET due_at = now() + interval '1 s', latest_at = now() + interval '2 s'"
        )
        site.receive("três")
        await site.sent()
        assert site.answers.questions == ["um\ndois\ntrês"]
        assert site.rows("SELECT latest_at FROM viva.whatsapp_chats") == [(None,)]


async def test_ten_deliveries_to_two_processes_are_one_row_and_one_turn(
    database_url: str,
) -> None:
    async with lab(database_url, servers=2) as site:
        for _ in range(5):
            site.upsert(row("oi", "SAME", at=time.time()))
        await site.sent()
        await asyncio.sleep(0.5)
        await site.evolution.settled()
        counts = "SELECT deliveries FROM viva.inbox WHERE message_id = 'SAME'"
        assert site.rows(counts) == [(10,)]
        assert site.rows(_TURNS) == [(1, 1)]
        assert site.texts == ["Resposta 1"]


@pytest.mark.parametrize("second", ["at once", "when it is answered"])
async def test_one_message_in_two_events_is_one_turn(
    database_url: str, second: str
) -> None:
    async with lab(database_url) as site:
        message = row("oi", "SAME", at=time.time())
        site.upsert(message)
        if second != "at once":
            await site.sent()
        site.evolution.webhooks.emit("Message", "loja", message)
        await site.sent()
        await asyncio.sleep(0.5)
        assert site.texts == ["Resposta 1"]
        assert site.rows("SELECT count(*) FROM viva.whatsapp_turns") == [(1,)]


async def test_a_chat_has_one_session_and_the_model_sees_it(database_url: str) -> None:
    async with lab(database_url) as site:
        for number in (1, 2):
            site.receive(f"pergunta {number}")
            await site.sent(number)
        told = [(m.role, m.content) for m in site.answers.seen[1].messages]
        assert told == [
            ("user", "pergunta 1"),
            ("assistant", "Resposta 1"),
            ("user", "pergunta 2"),
        ]
        assert site.answers.seen[1].channel == "whatsapp"
        assert site.rows("SELECT count(*) FROM viva.sessions") == [(1,)]


async def test_what_comes_in_mid_turn_is_the_next_turn(database_url: str) -> None:
    dictation = Dictation()
    async with lab(database_url, respond=dictation) as site:
        site.receive("primeira")
        first = await dictation.begun()
        site.receive("segunda", at=time.time() - 1)
        site.receive("terceira", at=time.time())
        await site.evolution.settled()
        await asyncio.sleep(0.6)
        assert len(dictation.replies) == 1
        first.say("um")
        first.end()
        second = await dictation.begun()
        assert second.conversation.messages[-1].content == "segunda\nterceira"
        second.say("dois")
        second.end()
        await site.sent(2)
        assert site.texts == ["um", "dois"]


async def test_a_turn_counts_as_a_reader_of_its_reply(database_url: str) -> None:
    dictation = Dictation()
    async with lab(
        database_url, respond=dictation, disconnect_grace_seconds=0.0
    ) as site:
        site.receive("oi")
        reply = await dictation.begun()
        reply.say("um")
        await asyncio.sleep(1.0)
        reply.end()
        await site.sent()
        assert site.texts == ["um"]


@pytest.mark.parametrize("first", ["lid", "phone"])
async def test_a_chat_keeps_its_session_when_its_address_changes(
    database_url: str, first: str
) -> None:
    both = {"remoteJid": LID, "remoteJidAlt": PERSON}
    keys = {"lid": {"remoteJid": LID}, "phone": both}
    order = ["lid", "phone", "lid"] if first == "lid" else ["phone", "lid"]
    async with lab(database_url) as site:
        for number, name in enumerate(order, start=1):
            message = row(f"p{number}", f"L{number}", at=time.time(), **keys[name])
            site.upsert(message)
            await site.sent(number)
        assert len(site.answers.seen[-1].messages) == 2 * len(order) - 1
        assert site.rows("SELECT person FROM viva.sessions") == [
            ("loja/5511988887777",)
        ]
        assert site.rows("SELECT jid FROM viva.whatsapp_chats") == [(PERSON,)]
        assert site.evolution.sent[-1].jid == PERSON


async def test_a_cut_reply_is_not_sent_and_the_turn_runs_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_RERUN_SECONDS", (0.0, 0.0, 0.0))
    async with lab(database_url) as site:
        site.answers.fails = [ResponderError("upstream_unavailable")] * 3
        site.receive("oi")
        await site.sent()
        assert site.texts == ["Resposta 4"]
        assert [len(each.messages) for each in site.answers.seen] == [1] * 4
        assert site.rows(_TURNS) == [(1, 4)]


async def test_what_comes_before_a_turn_runs_again_is_answered_behind_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_RERUN_SECONDS", (1.0, 1.0, 1.0))
    async with lab(database_url) as site:
        site.answers.fails = [ResponderError("upstream_unavailable")]
        site.receive("um")
        await site.stored(
            "SELECT c.owner IS NULL AND t.runs = 1 FROM viva.whatsapp_chats AS c"
            " JOIN viva.whatsapp_turns AS t USING (instance, jid)",
            True,
        )
        site.receive("dois")
        await site.sent(2)
        assert site.answers.questions == ["um", "um", "dois"]
        assert site.texts == ["Resposta 2", "Resposta 3"]


_REFUSES = """
CREATE SEQUENCE viva.refused;
CREATE FUNCTION viva.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('viva.refused');
    RAISE insufficient_privilege;
END $$;
CREATE TRIGGER refuses BEFORE INSERT ON viva.messages
FOR EACH ROW EXECUTE FUNCTION viva.refuse();
"""


async def test_a_turn_that_the_database_refuses_waits_and_loses_no_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_SOON_SECONDS", 0.05)
    async with lab(database_url) as site:
        site.rows(_REFUSES)
        site.receive("oi")
        await until(lambda: site.rows("SELECT last_value FROM viva.refused")[0][0] > 5)
        site.rows("DROP TRIGGER refuses ON viva.messages")
        await site.sent()
        assert site.texts == ["Resposta 1"]
        assert site.rows(_TURNS) == [(1, 1)]


async def test_a_defect_keeps_no_chat_from_its_answers(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_ORPHAN_SECONDS", 0.05)
    fails = [RuntimeError("one"), RuntimeError("two")]
    release = turns.Turns.release

    async def failing(self: turns.Turns, *what: Any) -> None:
        if fails:
            raise fails.pop()
        await release(self, *what)

    monkeypatch.setattr(turns.Turns, "release", failing)
    async with lab(database_url) as site:
        site.receive("um")
        await site.sent()
        site.receive("dois")
        await site.sent(2)
        assert site.texts == ["Resposta 1", "Resposta 2"]
    assert fails == []


async def test_a_turn_that_fails_every_time_is_dead_and_can_be_replayed(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_RERUN_SECONDS", (0.0, 0.0, 0.0))
    async with lab(database_url) as site:
        site.answers.fails = [ResponderError("upstream_unavailable")] * 4
        site.receive("oi")
        await site.sent()
        assert site.texts == [rules.FAILURE_TEXT]
        [dead] = await database.fetch("list_dead", Dead, rows=10)
        assert (dead.kind, dead.state, dead.jid) == ("turn", "dead", PERSON)
        assert await replay(database, dead.id)
        await site.sent(2)
        assert site.texts[1] == "Resposta 5"
        assert await database.fetch("list_dead", Dead, rows=10) == []
        assert not await replay(database, dead.id)


@pytest.mark.parametrize("end", [EndOfReply("content_filter"), EndOfReply("length")])
async def test_a_reply_that_the_model_ended_early_is_sent(
    database_url: str, end: EndOfReply
) -> None:
    async with lab(database_url) as site:
        site.answers.fails = [end]
        site.receive("oi")
        await site.sent()
        assert site.texts == ["Resposta 1"]
        await site.stored("SELECT state FROM viva.whatsapp_turns", "answered")


@pytest.mark.parametrize("end", [EndOfReply("content_filter"), EndOfReply("length")])
async def test_without_text_such_an_end_is_told_at_once(
    database_url: str, end: EndOfReply
) -> None:
    async with lab(database_url) as site:
        site.answers.is_silent = True
        site.answers.fails = [end]
        site.receive("oi")
        await site.sent()
        assert site.texts == [rules.FAILURE_TEXT]
        assert len(site.answers.seen) == 1


async def test_a_reply_at_our_own_limit_is_sent(database_url: str) -> None:
    async with lab(database_url, max_reply_chars=50) as site:
        site.answers.text = "Um texto sem fim. " * 5
        site.receive("oi")
        await site.sent()
        assert site.texts == [site.answers.text[:50].strip()]
        assert len(site.answers.seen) == 1
        await site.stored("SELECT state FROM viva.whatsapp_turns", "answered")


async def test_a_final_failure_is_not_tried_again(database_url: str) -> None:
    async with lab(database_url) as site:
        site.answers.is_silent = True
        site.answers.fails = [ResponderError("upstream_refused", retryable=False)]
        site.receive("oi")
        await site.sent()
        assert site.texts == [rules.FAILURE_TEXT]
        assert len(site.answers.seen) == 1


async def test_a_refused_history_is_shortened_and_a_refused_question_is_final(
    database_url: str,
) -> None:
    async with lab(database_url) as site:
        site.receive("um")
        await site.sent()
        site.answers.is_silent = True
        site.answers.fails = [RefusedError(400), RefusedError(400)]
        site.receive("dois")
        await site.sent(2)
        assert site.texts == ["Resposta 1", rules.FAILURE_TEXT]
        assert [[m.content for m in seen.messages] for seen in site.answers.seen] == [
            ["um"],
            ["um", "Resposta 1", "dois"],
            ["dois"],
        ]


async def test_what_the_history_cuts_in_the_middle_is_marked_in_front(
    database_url: str,
) -> None:
    async with lab(database_url, history_messages=2) as site:
        site.receive("um")
        await site.sent()
        site.receive("dois")
        await site.sent(2)
        assert site.answers.questions[1] == "[assistente] Resposta 1\n\ndois"


async def test_media_without_text_get_a_polite_text_and_the_model_nothing(
    database_url: str,
) -> None:
    async with lab(database_url, whatsapp_unsupported_text="Só texto.") as site:
        site.receive("", message={"audioMessage": {"mimetype": "audio/ogg"}})
        await site.sent()
        assert site.texts == ["Só texto."]
        assert site.answers.seen == []


async def test_more_answers_than_allowed_wait(database_url: str) -> None:
    async with lab(database_url, whatsapp_replies_per_10_minutes=1) as site:
        site.receive("um")
        await site.sent()
        site.receive("dois")
        await site.stored(
            "SELECT due_at > now() + interval '9 minutes' AND owner IS NULL"
            " FROM viva.whatsapp_chats",
            True,
        )
        assert len(site.answers.seen) == 1
        site.receive("outro", jid="5511900000001@s.whatsapp.net")
        await site.sent(2)


async def _not_answered(site: Lab, message_id: str) -> str | None:
    await site.applied()
    return site.why_not(message_id)


async def test_what_is_not_answered_says_why(database_url: str) -> None:
    async with lab(database_url, whatsapp_ignore=("5511900000009",)) as site:
        old = site.receive("velha", at=time.time() - 4000)
        group = site.receive("grupo", jid="120363000000000000@g.us")
        ignored = site.receive("eu", jid="5511900000009@s.whatsapp.net")
        sticker = site.receive("", message={"stickerMessage": {}})
        for message_id, why in (
            (old, "old"),
            (group, "group"),
            (ignored, "ignored"),
            (sticker, "sticker"),
        ):
            assert await _not_answered(site, message_id) == why
        await asyncio.sleep(0.5)
        assert site.texts == []
        texts = "SELECT count(text) FROM viva.whatsapp_messages"
        assert site.rows(texts) == [(0,)]


async def test_without_a_secret_nothing_is_answered_until_it_is_trusted(
    database_url: str,
) -> None:
    message = row("oi", "UNTRUSTED", at=time.time())
    async with lab(database_url, webhook_open=False) as site:
        site.upsert(message)
        await site.evolution.settled()
        assert site.rows("SELECT trusted FROM viva.inbox") == [(False,)]
        assert site.rows("SELECT count(*) FROM viva.whatsapp_messages") == [(0,)]
    async with lab(database_url) as site:
        site.upsert(message)
        await site.sent()
        assert site.texts == ["Resposta 1"]


async def test_a_message_that_waited_for_too_long_is_not_answered(
    database_url: str, database: Database
) -> None:
    async with lab(database_url, worker=False) as site:
        message_id = site.receive("oi")
        await site.evolution.settled()
        site.rows("UPDATE viva.whatsapp_messages SET sent_at = now() - interval '2 h'")
    async with lab(database_url) as site:
        await until(lambda: site.why_not(message_id) == "old")
        assert site.texts == []


@pytest.mark.parametrize("change", ["edit", "delete"])
async def test_a_change_before_the_turn_counts(database_url: str, change: str) -> None:
    async with lab(database_url, whatsapp_debounce_seconds=1.5) as site:
        message_id = site.receive("errado")
        await site.evolution.settled()
        site.upsert(_change(change, message_id), "messages.edited")
        await site.applied()
        if change == "delete":
            assert site.why_not(message_id) == "deleted"
            return
        await site.sent()
        assert site.answers.questions == ["certo"]


def _change(change: str, message_id: str) -> dict[str, Any]:
    key = {"remoteJid": PERSON, "fromMe": True, "id": message_id}
    if change == "delete":
        return {"key": key, "type": "REVOKE"}
    edited = {"conversation": "certo"}
    return {"key": key, "type": "MESSAGE_EDIT", "editedMessage": edited,
            "timestampMs": "1761048603000"}  # fmt: skip
