"""What is sent is sent once and in order, and what is not is there to be seen."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.evolution import PERSON
from tests.integration.whatsapp.lab import lab
from tests.waiting import until
from viva_server.store.driver.database import Database, Row
from viva_server.store.operator import Dead, replay
from viva_server.store.processes import add_process, release_work
from viva_server.values import new_id
from viva_server.whatsapp.conversation import worker

_SENDS = "SELECT state FROM viva.outbox ORDER BY seq"
_LONG = "\n\n".join(letter * 3000 for letter in "abc")


async def test_a_long_reply_goes_in_parts_in_order(database_url: str) -> None:
    async with lab(database_url) as site:
        site.answers.text = _LONG
        site.receive("conte tudo")
        await site.sent(3)
        assert [text[0] for text in site.texts] == ["a", "b", "c"]


async def test_what_surely_was_not_sent_is_sent_again(database_url: str) -> None:
    async with lab(database_url) as site:
        site.evolution.script("503")
        site.receive("oi")
        await site.sent()
        await site.stored(_SENDS, "sent")
        outcomes = "SELECT jsonb_path_query_array(attempts, '$[*].outcome')"
        assert site.rows(f"{outcomes} FROM viva.outbox") == [(["retry", "sent"],)]


async def test_an_unknown_outcome_is_settled_by_evolutions_event(
    database_url: str,
) -> None:
    async with lab(database_url) as site:
        site.evolution.script("drop after effect")
        site.receive("oi")
        await site.stored(_SENDS, "sent")
        await asyncio.sleep(0.5)
        assert site.texts == ["Resposta 1"]
        ids = "SELECT message_id FROM viva.outbox"
        assert site.rows(ids) == [(site.evolution.sent[0].message_id,)]
        assert site.rows("SELECT paused_until FROM viva.whatsapp_chats") == [(None,)]


async def test_an_echo_of_a_fork_settles_it_as_well(database_url: str) -> None:
    async with lab(database_url) as site:
        site.evolution.echoes_upserts = True
        site.evolution.script("drop after effect")
        site.receive("oi")
        await site.stored(_SENDS, "sent")
        assert site.texts == ["Resposta 1"]


async def test_an_outcome_that_stays_unknown_is_not_sent_again_by_itself(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as site:
        site.answers.text = _LONG
        site.evolution.script("drop")
        site.receive("oi")
        await until(lambda: site.rows(_SENDS)[:1] == [("unknown",)])
        await asyncio.sleep(1.0)
        # The next part waits until its time to be settled is over.
        assert site.rows(_SENDS) == [("unknown",), ("waiting",), ("waiting",)]
        assert site.texts == []
        site.rows("UPDATE viva.outbox SET due_at = now() WHERE state = 'unknown'")
        await site.sent(2)
        [dead] = await database.fetch("list_dead", Dead, rows=10)
        assert (dead.kind, dead.state) == ("send", "unknown")
        assert await replay(database, dead.id)
        await site.sent(3)
        assert [text[0] for text in site.texts] == ["b", "c", "a"]


async def test_a_refusal_is_final_for_the_whole_reply_and_can_be_replayed(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as site:
        site.answers.text = _LONG
        site.evolution.script("absent")
        site.receive("oi")
        await until(lambda: site.rows(_SENDS) == [("dead",)] * 3)
        assert site.texts == []
        dead = await database.fetch("list_dead", Dead, rows=10)
        assert [each.error for each in dead][1:] == ["earlier_part"] * 2
        assert await replay(database, dead[0].id)
        await site.sent(3)
        assert [text[0] for text in site.texts] == ["a", "b", "c"]


async def test_nothing_older_than_an_hour_is_sent(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as site:
        site.evolution.script("503")
        site.receive("oi")
        await site.stored(_SENDS, "waiting")
        site.rows("UPDATE viva.outbox SET expires_at = now()")
        await site.stored(_SENDS, "dead")
        [dead] = await database.fetch("list_dead", Dead, rows=10)
        assert dead.error == "expired"
        assert site.texts == []


async def test_what_a_dead_process_was_sending_is_doubted_and_settled(
    database_url: str, database: Database
) -> None:
    async with lab(database_url) as site:
        site.evolution.script(*["503"] * 50)
        site.receive("oi")
        await site.stored(_SENDS, "waiting")
        dead = new_id()
        connection = await database.connect()
        await add_process(connection, dead, 1)
        await connection.close()
        claimed: list[Row] = []
        while not claimed:  # the server may be faster, and gets another 503
            await site.stored(_SENDS, "waiting")
            site.rows("UPDATE viva.outbox SET due_at = now() - interval '1 s'")
            claimed = await database.fetch("claim_sends", owner=dead, sends=1)
        await release_work(database, dead)
        assert site.rows(_SENDS) == [("unknown",)]
        site.upsert(
            {
                "key": {"remoteJid": PERSON, "fromMe": True, "id": "PROOF"},
                "message": {"conversation": "Resposta 1"},
                "messageTimestamp": 1,
            },
            "send.message",
        )
        await site.stored("SELECT state, message_id FROM viva.outbox", "sent", "PROOF")
        assert site.texts == []


async def test_receipts_only_go_forward_and_may_come_first(database_url: str) -> None:
    async with lab(database_url) as site:
        site.receive("oi")
        await site.sent()
        [sent] = site.evolution.sent
        receipt = "SELECT receipt FROM viva.outbox"
        for status, shown in (
            ("SERVER_ACK", "SERVER_ACK"),
            ("READ", "READ"),
            ("DELIVERY_ACK", "READ"),
            ("ERROR", "READ"),
            ("PLAYED", "PLAYED"),
        ):
            site.evolution.acknowledge(sent, status)
            await site.applied()
            assert site.rows(receipt) == [(shown,)]
        assert site.rows(_SENDS) == [("sent",)]


@pytest.mark.parametrize("status", ["FAILED", "ERROR"])
async def test_a_receipt_of_failure_is_a_dead_letter_that_can_be_replayed(
    status: str, database_url: str, database: Database
) -> None:
    async with lab(database_url) as site:
        site.receive("oi")
        await site.sent()
        await site.stored(_SENDS, "sent")
        site.evolution.acknowledge(site.evolution.sent[0], status)
        await site.stored(_SENDS, "dead")
        [dead] = await database.fetch("list_dead", Dead, rows=10)
        assert dead.error == f"receipt_{status.lower()}"
        assert await replay(database, dead.id)
        await site.sent(2)
        await site.stored("SELECT state, receipt FROM viva.outbox", "sent", None)


async def test_what_waits_for_the_connection_goes_out_once_it_is_open(
    database_url: str,
) -> None:
    async with lab(database_url) as site:
        site.evolution.states["loja"] = "connecting"
        site.receive("oi")
        await site.stored("SELECT error FROM viva.outbox", "connection_closed")
        site.rows("UPDATE viva.outbox SET due_at = now() + interval '1 hour'")
        site.evolution.connect("open")
        await site.sent()
        assert site.texts == ["Resposta 1"]


async def test_a_request_that_takes_long_is_not_made_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_ORPHAN_SECONDS", 0.1)
    async with lab(database_url) as site:
        site.evolution.script("hang")
        site.receive("oi")
        await site.stored(_SENDS, "sending")
        await asyncio.sleep(1.0)
        assert site.rows(_SENDS) == [("sending",)]
        assert site.texts == []


async def test_work_whose_claim_was_lost_on_its_way_is_given_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_ORPHAN_SECONDS", 0.1)
    async with lab(database_url) as site:
        site.receive("oi")
        await site.sent()
        await site.stored(_SENDS, "sent")
        mine = "owner = (SELECT id FROM viva.processes)"
        site.rows(f"UPDATE viva.whatsapp_chats SET {mine}")
        site.rows(f"UPDATE viva.outbox SET state = 'sending', {mine}")
        await site.sent(2)
        await site.stored("SELECT owner FROM viva.whatsapp_chats", None)
