"""Snapshots and sessions over HTTP."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from tests.chat_host import chat_host
from tests.dictation import Dictation, saying
from tests.postgres import run_sql


async def test_a_person_without_a_session_sees_an_empty_snapshot(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("oi")) as host:
        snapshot = await host.ana.snapshot()
        sessions = await host.ana.get("/viva/chat/sessions")
    assert snapshot == {
        "session_id": None,
        "modo": None,
        "messages": [],
        "has_more": False,
        "active_reply": None,
    }
    assert sessions.json == {"items": [], "total": 0, "page": 1, "page_size": 20}


async def test_a_snapshot_shows_the_newest_messages_oldest_first(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        for number in range(4):
            await host.ana.ask(f"m{number}")
        newest = await host.ana.snapshot(limit=3)
        before = await host.ana.snapshot(limit=3, before=newest["messages"][0]["seq"])
        first = await host.ana.snapshot(limit=3, before=before["messages"][0]["seq"])
        none = await host.ana.snapshot(before=1)
    assert [m["seq"] for m in newest["messages"]] == [6, 7, 8]
    assert [m["seq"] for m in before["messages"]] == [3, 4, 5]
    assert [m["seq"] for m in first["messages"]] == [1, 2]
    pages = (newest, before, first, none)
    assert [page["has_more"] for page in pages] == [True, True, False, False]
    assert none["messages"] == []


async def test_a_message_in_a_snapshot_has_these_members(database_url: str) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        await host.ana.ask("oi")
        user, reply = (await host.ana.snapshot())["messages"]
    moment = datetime.fromisoformat(user.pop("created_at"))
    assert moment.tzinfo is not None
    assert user.pop("id") != reply.pop("id")
    assert user == {
        "seq": 1,
        "tipo": "usuario",
        "conteudo": "oi",
        "modo": None,
        "anexos": [],
        "meta": {},
        "status": "complete",
        "finish_reason": None,
    }
    assert reply["tipo"] == "ia"


@pytest.mark.parametrize(
    ("limit", "shown"),
    [("0", 1), ("-5", 1), ("1", 1), ("251", 250), ("99999999999999", 250), (None, 120)],
)
async def test_the_limit_is_clamped(
    database_url: str, limit: str | None, shown: int
) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        session_id = (await host.ana.ask("oi")).json["session_id"]
        run_sql(
            database_url,
            "INSERT INTO viva.messages (session_id, seq, id, role, content, status) "
            f"SELECT '{session_id}', n, gen_random_uuid(), 'user', 'x', 'complete' "
            "FROM generate_series(3, 260) AS n; "
            "UPDATE viva.sessions SET message_count = 260",
        )
        snapshot = await host.ana.snapshot(
            **({} if limit is None else {"limit": limit})
        )
    assert len(snapshot["messages"]) == shown
    assert snapshot["messages"][-1]["seq"] == 260
    assert snapshot["has_more"] is True


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=", "limit=1&limit=2", "before=0", "before=x", "limit=1e3"],
)
async def test_a_query_that_is_no_number_is_400(database_url: str, query: str) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        answer = await host.ana.get(f"/viva/chat/snapshot?{query}")
    assert answer.status == 400
    assert answer.json["errors"][0]["pointer"].startswith("/query/")


async def test_a_snapshot_shows_the_live_reply_and_how_much_of_it_is_stored(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with (
        chat_host(database_url, dictation) as host,
        host.ana.stream("oi") as stream,
    ):
        message_id = (await stream.event()).data["message_id"]
        reply = await dictation.begun()
        reply.say("a😀b")
        await stream.event()
        snapshot = await host.ana.snapshot()
        older = await host.ana.snapshot(before=2)
        async with host.ana.resume(message_id, f"{message_id}:3") as resumed:
            offset = (await resumed.event()).data["offset"]
    active = {"message_id": message_id, "offset": 3}
    assert snapshot["active_reply"] == older["active_reply"] == active
    assert offset == 3
    live = snapshot["messages"][-1]
    assert (live["conteudo"], live["status"]) == ("a😀b", "streaming")
    assert live["finish_reason"] is None


async def test_a_new_session_is_the_newest_and_empty(database_url: str) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        old = (await host.ana.ask("oi")).json["session_id"]
        new = await host.ana.post("/viva/chat/session/new", {"modo": "curto"})
        bare = await host.ana.post("/viva/chat/session/new")
        snapshot = await host.ana.snapshot()
        kept = await host.ana.snapshot(session_id=old)
    assert new.status == bare.status == 200
    assert (new.json["modo"], new.json["messages"]) == ("curto", [])
    assert bare.json == snapshot
    assert len({old, new.json["session_id"], bare.json["session_id"]}) == 3
    assert len(kept["messages"]) == 2


async def test_sessions_are_listed_newest_first_with_titles(database_url: str) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        first = (await host.ana.ask("  Oi,\n tudo   bem?  ")).json["session_id"]
        await host.ana.post("/viva/chat/session/new", {"modo": "m"})
        second = (await host.ana.ask("palavra " * 40)).json["session_id"]
        await host.ana.ask("de novo", session_id=first)
        answer = await host.ana.get("/viva/chat/sessions")
        page = await host.ana.get("/viva/chat/sessions?page=2&page_size=1")
        far = await host.ana.get("/viva/chat/sessions?page=999999999&page_size=9999")
        low = await host.ana.get("/viva/chat/sessions?page=-1&page_size=0")
    newest, older = answer.json["items"]
    assert (newest["id"], older["id"]) == (first, second)
    assert (newest["titulo"], newest["message_count"]) == ("Oi, tudo bem?", 4)
    assert older["titulo"].endswith("…")
    assert len(older["titulo"]) <= 60
    assert (newest["channel"], older["modo"]) == ("web", "m")
    assert newest["created_at"] <= newest["last_message_at"] == newest["updated_at"]
    assert [item["id"] for item in page.json["items"]] == [second]
    assert (page.json["total"], page.json["page"], page.json["page_size"]) == (2, 2, 1)
    assert (far.status, far.json["items"], far.json["page_size"]) == (200, [], 100)
    assert (low.json["page"], low.json["page_size"]) == (1, 1)


async def test_a_deleted_session_is_gone(database_url: str) -> None:
    async with chat_host(database_url, saying("ok")) as host:
        answer = await host.ana.post(
            "/viva/chat", {"mensagem": "oi"}, headers={"Idempotency-Key": "k"}
        )
        session_id = answer.json["session_id"]
        path = f"/viva/chat/sessions/{session_id}"
        foreign = await host.person("bia").request("DELETE", path)
        deleted = await host.ana.request("DELETE", path)
        again = await host.ana.request("DELETE", path)
        gone = await host.ana.get("/viva/chat/snapshot?session_id=" + session_id)
        reply = await host.ana.get(f"/viva/chat/stream/{answer.json['message_id']}")
        # The key lives as long as its message.
        anew = await host.ana.post(
            "/viva/chat", {"mensagem": "outra"}, headers={"Idempotency-Key": "k"}
        )
    assert (deleted.status, deleted.body) == (204, b"")
    assert [a.status for a in (foreign, again, gone, reply)] == [404] * 4
    assert anew.status == 200


async def test_deleting_a_session_stops_its_live_reply_first(database_url: str) -> None:
    dictation = Dictation()
    async with (
        chat_host(database_url, dictation) as host,
        host.ana.stream("oi") as stream,
    ):
        session_id = (await stream.event()).data["session_id"]
        reply = await dictation.begun()
        reply.say("abc")
        await stream.event()
        path = f"/viva/chat/sessions/{session_id}"
        deleted = await host.ana.request("DELETE", path)
        [done] = await stream.rest()
        await asyncio.wait_for(reply.closed.wait(), 10)
    assert deleted.status == 204
    assert (done.data["status"], done.data["finish_reason"]) == ("partial", "stopped")
