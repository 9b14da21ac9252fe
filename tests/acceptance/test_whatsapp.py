"""A message on WhatsApp gets one reply, whatever happens to who makes it."""

from __future__ import annotations

import signal

from tests.acceptance.whatsapp_site import JID, WhatsAppSite, whatsapp_site
from tests.fakes.model import FakeModel
from tests.fakes.script import Script, reply_to
from tests.waiting import until

_QUESTION = "Qual é o horário?"


async def test_a_message_gets_one_reply(database_url: str) -> None:
    async with FakeModel() as model, whatsapp_site(database_url, model) as site:
        question = site.evolution.receive(_QUESTION)
        await site.answered()
        await site.evolution.settled()
        [sent] = site.evolution.sent
        assert (sent.instance, sent.jid) == ("loja", JID)
        assert sent.text == reply_to(_QUESTION).strip()
        assert site.evolution.typing
        [session] = site.rows(
            "SELECT channel, person, message_count FROM viva.sessions"
        )
        assert session == ("whatsapp", "loja/5511988887777", 2)

        site.evolution.acknowledge(sent, "READ")
        site.evolution.acknowledge(sent, "DELIVERY_ACK")
        await until(lambda: site.rows("SELECT receipt FROM viva.outbox") == [("READ",)])
        await _check_trace(site, question, sent.message_id)
        assert await site.servers[0].stopped() == 0
        assert site.rows("SELECT count(*) FROM viva.processes") == [(0,)]


async def _check_trace(site: WhatsAppSite, question: str, sent_id: str) -> None:
    status, trace = await site.trace(question)
    assert status == 200, site.servers[0].output
    [delivery] = trace["deliveries"]
    assert (delivery["event"], delivery["deliveries"]) == ("messages.upsert", 1)
    [message] = trace["messages"]
    assert message["why_not"] is None
    [turn] = trace["turns"]
    assert (turn["state"], turn["runs"]) == ("answered", 1)
    assert [reply["status"] for reply in turn["replies"]] == ["complete"]
    [send] = turn["sends"]
    assert (send["state"], send["message_id"]) == ("sent", sent_id)
    assert [each["outcome"] for each in send["attempts"]] == ["sent"]
    assert {"READ", "DELIVERY_ACK"} == {each["receipt"] for each in send["receipts"]}
    assert (await site.trace(sent_id))[1]["turns"] == [turn]
    assert (await site.trace("unheard"))[0] == 404
    assert (await site.trace(question, scope=None))[0] == 401
    assert (await site.trace(question, scope="user"))[0] == 403


async def test_a_process_killed_in_mid_turn_is_taken_over_and_the_turn_answered_once(
    database_url: str,
) -> None:
    slow = Script(tokens=200, interval_ms=50)
    async with (
        FakeModel(slow, Script(tokens=5)) as model,
        whatsapp_site(database_url, model, servers=2) as site,
    ):
        site.evolution.receive(_QUESTION)
        await until(lambda: site.rows("SELECT 1 FROM viva.journal"))
        [(owner,)] = site.rows(
            "SELECT l.owner FROM viva.live_replies AS l"
            " JOIN viva.whatsapp_chats AS c ON c.owner = l.owner"
        )
        await _kill_owner(site, owner)
        await site.answered()
        [sent] = site.evolution.sent
        assert sent.text == reply_to(_QUESTION, Script(tokens=5)).strip()
        assert site.rows("SELECT state, runs FROM viva.whatsapp_turns") == [
            ("answered", 2)
        ]
        replies = "SELECT status, finish_reason FROM viva.messages ORDER BY seq"
        assert site.rows(replies) == [
            ("complete", None),
            ("partial", "crashed"),
            ("complete", "stop"),
        ]
        # The model sees neither the cut reply nor the question twice.
        seen = [m["role"] for m in model.requests[-1].body["messages"]]
        assert seen == ["system", "user"]


async def _kill_owner(site: WhatsAppSite, owner: str) -> None:
    """Kill the server that is registered as this owner; they started in order."""
    rows = site.rows("SELECT id FROM viva.processes ORDER BY started_at")
    server = site.servers[[row[0] for row in rows].index(owner)]
    assert await server.stopped(signal.SIGKILL) == -signal.SIGKILL


async def test_a_stop_in_mid_turn_leaves_it_to_the_next_process(
    database_url: str,
) -> None:
    slow = Script(tokens=200, interval_ms=50)
    async with FakeModel(slow, Script(tokens=5)) as model:
        async with whatsapp_site(database_url, model) as site:
            site.evolution.receive(_QUESTION)
            await until(lambda: site.rows("SELECT 1 FROM viva.journal"))
            assert await site.servers[0].stopped(signal.SIGTERM) == 0
            assert site.evolution.sent == []
            assert site.rows("SELECT owner FROM viva.whatsapp_chats") == [(None,)]
        async with whatsapp_site(database_url, model) as site:
            await site.answered()
            [sent] = site.evolution.sent
            assert sent.text == reply_to(_QUESTION, Script(tokens=5)).strip()


async def test_a_process_killed_in_mid_send_leaves_an_unknown_that_nobody_repeats(
    database_url: str,
) -> None:
    async with (
        FakeModel() as model,
        whatsapp_site(database_url, model, servers=2) as site,
    ):
        site.evolution.script("hang")
        site.evolution.receive(_QUESTION)
        sending = "SELECT owner FROM viva.outbox WHERE state = 'sending'"
        await until(lambda: site.rows(sending))
        [(owner,)] = site.rows(sending)
        await _kill_owner(site, owner)
        state = "SELECT state, error FROM viva.outbox"
        await until(lambda: site.rows(state) == [("unknown", "crashed")])
        assert site.evolution.sent == []
