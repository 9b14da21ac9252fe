"""What an operator is told, by any process, and what it can do again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from tests.chat_host import Host, chat_host, eventually
from tests.dictation import Dictation, saying
from tests.operators import BASE, add_dead, operator, overview, search
from tests.people import add_turns, count, receive, rows, webhook, written
from viva_server import __version__
from viva_server.store.driver.database import Database
from viva_server.values import new_id

ROUTES = [
    ("GET", "/overview"),
    ("GET", "/dead"),
    ("POST", "/dead/replay"),
    ("POST", "/messages/search"),
]


@asynccontextmanager
async def two(url: str, dictation: Dictation) -> AsyncIterator[tuple[Host, Host]]:
    async with chat_host(url, dictation) as one, chat_host(url, dictation) as other:
        yield one, other


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_it_is_for_operators_only(shared: Host, method: str, path: str) -> None:
    nobody = shared.person("ana")
    nobody.headers = {}
    for person, status in ((nobody, 401), (shared.ana, 403)):
        answer = await person.request(method, BASE + path)
        assert answer.status == status


async def test_each_process_shows_both(database_url: str) -> None:
    dictation = Dictation()
    async with (
        two(database_url, dictation) as (one, other),
        one.ana.stream("oi") as stream,
    ):
        message_id = (await stream.event()).data["message_id"]
        dictated = await dictation.begun()
        dictated.say("Olá, ")
        async with other.ana.resume(message_id) as far:
            await far.event()
            for asked in (operator(one), operator(other)):
                look = partial(overview, asked)
                check_both(await eventually(look, _is_read), message_id)
        dictated.end()
        await stream.rest()


def _is_read(seen: Any) -> bool:
    """Whether the reply has a reader in each of the two processes."""
    [reply] = seen["replies"] or [{"far_processes": 0}]
    readers = [each["readers"] for each in seen["processes"]]
    return reply["far_processes"] == 1 and readers == [1, 1]


@pytest.mark.parametrize(("dead_at", "processes"), [("now()", 0), ("NULL", 1)])
async def test_a_remote_reader_is_shown_until_its_process_is_dead(
    database_url: str, dead_at: str, processes: int
) -> None:
    other = new_id()
    async with (
        chat_host(database_url, Dictation()) as host,
        host.ana.stream("oi") as stream,
    ):
        message_id = (await stream.event()).data["message_id"]
        rows(
            database_url,
            "INSERT INTO viva.processes (id, lock_key, dead_at) VALUES"
            f" ('{other}', 1, {dead_at});"
            "INSERT INTO viva.far_readers (message_id, process_id, seen_at) VALUES"
            f" ('{message_id}', '{other}', now() - interval '1 h')",
        )
        [reply] = (await overview(operator(host)))["replies"]
        assert reply["far_processes"] == processes


def check_both(seen: Any, message_id: str) -> None:
    """Check what is told while one of two processes has a reply of five characters."""
    [reply] = seen["replies"]
    assert (reply["id"], reply["channel"]) == (message_id, "web")
    assert (reply["chars"], reply["left_at"]) == (len("Olá, "), None)
    owned = {p["id"]: p["live_replies"] for p in seen["processes"]}
    assert sorted(owned.values()) == [0, 1]
    assert owned[reply["process_id"]] == 1
    assert seen["process_id"] in owned
    for process in seen["processes"]:
        assert process["version"] == __version__
        assert process["silent_seconds"] < 15
        assert process["dead_at"] is None
    assert "Olá" not in json.dumps(seen)


async def test_a_reply_that_nobody_reads_and_a_dead_process_are_told(
    database_url: str,
) -> None:
    async with chat_host(database_url, Dictation()) as host:
        rows(
            database_url,
            "INSERT INTO viva.processes (id, lock_key, dead_at)"
            f" VALUES ('{new_id()}', 1, now())",
        )
        async with host.ana.stream("oi") as stream:
            await stream.event()
        seen = await eventually(
            lambda: overview(operator(host)), lambda s: s["replies"][0]["left_at"]
        )
        assert sorted(p["dead_at"] is None for p in seen["processes"]) == [False, True]


async def test_webhooks_are_counted_by_minute_and_event(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi", number=n) for n in (1, 1, 2)])
    await receive(database, [webhook("call", {"id": "c1"})])
    rows(
        database_url,
        "UPDATE viva.inbox SET received_at = now() - interval '5 minutes'"
        " WHERE event = 'call'",
    )
    async with chat_host(database_url, saying("oi")) as host:
        webhooks = (await overview(operator(host)))["webhooks"]
        counts = {e["event"]: e["counts"] for e in webhooks["events"]}
        assert {len(each) for each in counts.values()} == {30}
        assert sum(counts["messages.upsert"][-2:]) == 2  # of a duplicate there is one
        assert sum(counts["call"]) == 1
        assert 1 in counts["call"][-7:-4]
        assert not webhooks["is_capped"]
        # What is new is counted at the next look.
        await receive(database, [webhook("call", {"id": "c2"})])
        again = (await overview(operator(host)))["webhooks"]
        counts = {e["event"]: e["counts"] for e in again["events"]}
        assert sum(counts["call"]) == 2


async def test_a_flood_of_webhooks_is_counted_up_to_a_limit_and_named_in_part(
    database_url: str,
) -> None:
    rows(
        database_url,
        "INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind,"
        " answer, trusted, tail, headers, form, body, received_at)"
        " SELECT gen_random_uuid(), sha256(CAST(CAST(n AS text) AS bytea)), 'loja',"
        " 'event ' || n % 40, false, 'other', false, true, '', '{}', '{}', '{}',"
        " date_trunc('minute', now()) - interval '150 seconds'"
        " FROM generate_series(1, 2500) AS n",
    )
    async with chat_host(database_url, saying("oi")) as host:
        webhooks = (await overview(operator(host)))["webhooks"]
        assert webhooks["is_capped"]
        assert len(webhooks["events"]) == 13
        assert webhooks["events"][-1]["event"] == "other"
        assert sum(sum(each["counts"]) for each in webhooks["events"]) == 2000


async def test_messages_are_told_with_their_state_and_without_content(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("segredo", number=n) for n in (1, 2)])
    await receive(database, [written("outra", number=3, instance="filial")])
    rows(
        database_url,
        "UPDATE viva.whatsapp_messages SET why_not = 'old' WHERE message_id = 'M1';"
        "UPDATE viva.whatsapp_chats SET due_at = now() - interval '9 s'",
    )
    async with chat_host(database_url, saying("oi")) as host:
        seen = await overview(operator(host))
        states = {m["message_id"]: (m["state"], m["reason"]) for m in seen["messages"]}
        assert states == {
            "M1": ("skipped", "old"), "M2": ("waiting", None), "M3": ("waiting", None)
        }  # fmt: skip
        assert seen["work"]["turns_due"] == 2
        assert seen["work"]["turns_due_since"]
        add_turns(database_url, "resposta")
        seen = await overview(operator(host))
        told = sorted(m["state"] for m in seen["messages"])
        assert told == ["sent", "sent", "skipped"]
        assert "segredo" not in json.dumps(seen)
        assert "resposta" not in json.dumps(seen)

        found = await search(operator(host), "(11) 98888-7777")
        assert {m["message_id"] for m in found.json["messages"]} == {"M1", "M2", "M3"}
        other = await search(operator(host), "+351 912 345 678")
        assert (other.status, other.json["messages"]) == (200, [])


async def test_a_message_is_as_far_as_the_worst_part_of_its_answer(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi", number=1)])
    add_turns(database_url, "resposta")
    rows(
        database_url,
        "INSERT INTO viva.outbox (id, turn_id, instance, jid, text, state, error)"
        " SELECT gen_random_uuid(), turn_id, instance, jid, '', 'dead', 'refused'"
        " FROM viva.outbox",
    )
    async with chat_host(database_url, saying("oi"), worker=False) as host:
        [message] = (await overview(operator(host)))["messages"]
        assert (message["state"], message["reason"]) == ("dead", "refused")


async def test_a_person_is_found_by_the_phone_where_the_chat_is_a_lid(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi", chat="103899771998284@lid")])
    await receive(database, [written("oi", number=2)])
    rows(
        database_url,
        "INSERT INTO viva.whatsapp_lids (instance, lid, jid) VALUES"
        " ('loja', '103899771998284@lid', '5511988887777@s.whatsapp.net')",
    )
    async with chat_host(database_url, saying("oi")) as host:
        for phone in ("5511988887777", "103899771998284@lid"):
            found = (await search(operator(host), phone)).json["messages"]
            assert {m["message_id"] for m in found} == {"M1", "M2"}


async def test_a_phone_that_is_searched_for_is_in_no_log(
    shared: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert (await search(operator(shared), "5511988887777")).status == 200
    assert "messages/search" in caplog.text
    assert "88887777" not in caplog.text


async def test_each_kind_of_the_dead_is_named_with_a_message_and_done_again(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi", number=n) for n in (1, 2)])
    add_turns(database_url, "resposta")
    rows(
        database_url,
        "UPDATE viva.whatsapp_turns SET state = 'dead', error = 'upstream_error'"
        " WHERE id = (SELECT turn_id FROM viva.whatsapp_messages"
        " WHERE message_id = 'M1');"
        "UPDATE viva.outbox SET state = 'unknown', error = 'crashed'"
        " WHERE turn_id = (SELECT turn_id FROM viva.whatsapp_messages"
        " WHERE message_id = 'M2')",
    )
    add_dead(database_url, 1)
    async with chat_host(database_url, saying("oi"), worker=False) as host:
        ops = operator(host)
        dead = (await ops.get(f"{BASE}/dead")).json["items"]
        told = {(d["kind"], d["state"], d["reason"], d["message_id"]) for d in dead}
        assert told == {
            ("turn", "dead", "upstream_error", "M1"),
            ("send", "unknown", "crashed", "M2"),
            ("event", "dead", "odd", None),
        }
        ids = [item["id"] for item in dead]
        unknown = new_id()
        body = {"ids": [*ids, unknown, ids[0]]}
        done = (await ops.post(f"{BASE}/dead/replay", body)).json["items"]
        outcomes = {item["id"]: item["outcome"] for item in done}
        assert outcomes == dict.fromkeys(ids, "replayed") | {unknown: "not_dead"}
        assert (await ops.get(f"{BASE}/dead")).json["items"] == []
        assert count(database_url, "outbox", "state = 'waiting'") >= 1


async def test_a_dead_turn_waits_while_its_chat_has_a_running_one(
    database_url: str, database: Database
) -> None:
    await receive(database, [written("oi", number=n) for n in (1, 2)])
    add_turns(database_url, "", state="dead")
    rows(
        database_url,
        "UPDATE viva.whatsapp_turns SET state = 'running', ended_at = NULL WHERE id ="
        " (SELECT turn_id FROM viva.whatsapp_messages WHERE message_id = 'M2')",
    )
    async with chat_host(database_url, saying("oi"), worker=False) as host:
        ops = operator(host)
        [dead] = (await ops.get(f"{BASE}/dead")).json["items"]
        answer = await ops.post(f"{BASE}/dead/replay", {"ids": [dead["id"]]})
        assert answer.json["items"] == [{"id": dead["id"], "outcome": "chat_busy"}]
