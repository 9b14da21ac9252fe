"""Another answer to the same question, in the place of the newest reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.chat_host import Host, Person, chat_host, eventually
from tests.dictation import Dictated, Dictation, saying
from tests.postgres import run_sql
from tests.streams import Event, Stream, text_of
from viva_server import ResponderError

UNKNOWN = "01890000-0000-7000-8000-000000000000"


@asynccontextmanager
async def again(
    person: Person, message_id: str, **headers: str
) -> AsyncIterator[Stream]:
    """Ask for another answer; the connection closes at the end of the block."""
    async with person.session.post(
        f"{person.base}/viva/chat/stream/{message_id}/again",
        headers={**person.headers, **headers},
    ) as response:
        assert response.status == 200, await response.text()
        try:
            yield Stream(response)
        finally:
            response.close()


async def refused(person: Person, message_id: str, **kwargs: Any) -> tuple[int, str]:
    answer = await person.post(f"/viva/chat/stream/{message_id}/again", **kwargs)
    return answer.status, answer.json["code"]


async def ended(dictation: Dictation, stream: Stream, text: str) -> list[Event]:
    """Let the reply of a stream say a text and end; give its events."""
    reply = await dictation.begun()
    reply.say(text)
    reply.end()
    return await stream.rest()


async def answered(host: Host, dictation: Dictation, message: str, text: str) -> str:
    """Have a message answered; give the id of the reply."""
    async with host.ana.stream(message) as stream:
        message_id: str = (await stream.event()).data["message_id"]
        await ended(dictation, stream, text)
    return message_id


def said(reply: Dictated) -> list[tuple[str, str]]:
    """What the model was shown."""
    return [(each.role, each.content) for each in reply.conversation.messages]


async def test_another_answer_takes_the_place_of_the_newest(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        await answered(host, dictation, "um", "A")
        old = await answered(host, dictation, "dois", "B")
        before = await host.ana.snapshot()
        async with again(host.ana, old) as stream:
            accepted = (await stream.event()).data
            events = await ended(dictation, stream, "B de novo")
        after = await host.ana.snapshot()
        sessions = (await host.ana.get("/viva/chat/sessions")).json["items"]
        async with host.ana.resume(old) as stream:
            replaced = [await stream.event(), *await stream.rest()]
        stopped = await host.ana.post(f"/viva/chat/stream/{old}/stop")
        await answered(host, dictation, "três", "C")

    new = after["messages"][-1]
    assert accepted["message_id"] == new["id"] != old
    assert accepted["user_message_id"] == before["messages"][2]["id"]
    assert "resumed" not in accepted
    assert text_of(events) == new["conteudo"] == "B de novo"
    assert events[-1].data["message_count"] == sessions[0]["message_count"] == 4
    assert after["messages"][:3] == before["messages"][:3]
    assert [m["seq"] for m in after["messages"]] == [1, 2, 3, 4]
    assert said(dictation.replies[2]) == said(dictation.replies[1])
    # The old one can be read for ever, and is no part of the conversation any more.
    assert text_of(replaced) == "B"
    assert replaced[0].data["user_message_id"] == accepted["user_message_id"]
    assert replaced[-1].data["message_count"] == 4
    assert (stopped.json["seq"], stopped.json["meta"]) == (
        4,
        {"replaced_by": new["id"]},
    )
    assert said(dictation.replies[3])[-2:] == [
        ("assistant", "B de novo"),
        ("user", "três"),
    ]


async def test_a_failed_and_a_partial_reply_are_replaced_one_after_the_other(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi", modo="curto") as stream:
            first = (await stream.event()).data["message_id"]
            (await dictation.begun()).end(ResponderError("upstream_unavailable"))
            await stream.rest()
        async with again(host.ana, first) as stream:
            second = (await stream.event()).data["message_id"]
            reply = await dictation.begun()
            reply.say("met")
            reply.end(ResponderError("upstream_error"))
            await stream.rest()
        async with again(host.ana, second) as stream:
            third = (await stream.event()).data["message_id"]
            await ended(dictation, stream, "tudo")
        snapshot = await host.ana.snapshot()
        ids = {
            (await host.ana.post(f"/viva/chat/stream/{each}/stop")).json["id"]
            for each in (first, second, third)
        }
    rows = run_sql(
        database_url,
        "SELECT seq, replaced_seq, status, meta ->> 'replaced_by', mode"
        " FROM viva.messages WHERE role = 'assistant' ORDER BY seq",
    )
    assert rows == [
        (-2, 2, "partial", third, "curto"),
        (-1, 2, "failed", second, "curto"),
        (2, None, "complete", None, "curto"),
    ]
    assert [m["conteudo"] for m in snapshot["messages"]] == ["oi", "tudo"]
    assert ids == {first, second, third}
    assert {tuple(said(reply)) for reply in dictation.replies} == {(("user", "oi"),)}
    assert {reply.conversation.modo for reply in dictation.replies} == {"curto"}


async def test_what_cannot_be_replaced_is_refused(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        old = await answered(host, dictation, "um", "A")
        new = await answered(host, dictation, "dois", "B")
        question = (await host.ana.snapshot())["messages"][-2]["id"]
        bia = host.person("bia")
        assert await refused(host.ana, old) == (409, "not_newest")
        assert await refused(host.ana, question) == (404, "message_not_found")
        assert await refused(host.ana, UNKNOWN) == (404, "message_not_found")
        assert await refused(host.ana, "x") == (404, "message_not_found")
        assert await refused(bia, new) == (404, "message_not_found")
        assert await refused(host.ana, new, headers={"Idempotency-Key": ""}) == (
            400,
            "bad_idempotency_key",
        )
        answer = await host.ana.post(f"/viva/chat/stream/{new}/again", headers={
            "Authorization": "Bearer x"
        })  # fmt: skip
        assert answer.status == 401
        snapshot = await host.ana.snapshot()
    assert len(dictation.replies) == 2
    assert snapshot["messages"][-1]["id"] == new


async def test_a_key_is_judged_first_and_belongs_to_one_reply(
    database_url: str,
) -> None:
    dictation = Dictation()
    key = {"Idempotency-Key": "k"}
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi", headers=key) as stream:
            first = (await stream.event()).data["message_id"]
            await ended(dictation, stream, "A")
        # The same key as the message's own, and as another reply's.
        async with again(host.ana, first, **key) as stream:
            second = (await stream.event()).data["message_id"]
            await ended(dictation, stream, "BC")
        async with again(host.ana, second, **key) as stream:
            third = (await stream.event()).data["message_id"]
            await ended(dictation, stream, "D")
        assert len({first, second, third}) == 3
        assert await refused(host.ana, first) == (409, "not_newest")
        async with again(host.ana, first, **key) as stream:
            repeated = [await stream.event(), *await stream.rest()]
        cursor = {"Last-Event-ID": f"{second}:1"}
        async with again(host.ana, first, **key, **cursor) as stream:
            resumed = [await stream.event(), *await stream.rest()]
        async with host.ana.stream("oi", headers=key) as stream:
            original = [await stream.event(), *await stream.rest()]
        assert await refused(host.person("bia"), first, headers=key) == (
            404, "message_not_found",
        )  # fmt: skip
    assert repeated[0].data["message_id"] == resumed[0].data["message_id"] == second
    assert (text_of(repeated), text_of(resumed), text_of(original)) == ("BC", "C", "A")
    assert repeated[0].data["resumed"] is True
    assert len(dictation.replies) == 3


async def test_a_live_reply_is_kept_while_it_is_read_and_stopped_when_it_is_not(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            live = (await stream.event()).data["message_id"]
            reply = await dictation.begun()
            reply.say("abc")
            await stream.event()
            answer = await host.ana.post(f"/viva/chat/stream/{live}/again")
        async with again(host.ana, live) as stream:
            await asyncio.wait_for(reply.closed.wait(), 30)
            await ended(dictation, stream, "D")
        stopped = await host.ana.post(f"/viva/chat/stream/{live}/stop")
        snapshot = await host.ana.snapshot()
    assert (answer.status, answer.json["code"]) == (409, "reply_in_progress")
    assert answer.json["message_id"] == live
    assert answer.json["resume_url"] == f"/api/v1/viva/chat/stream/{live}"
    assert (stopped.json["conteudo"], stopped.json["finish_reason"]) == (
        "abc", "superseded",
    )  # fmt: skip
    assert [m["conteudo"] for m in snapshot["messages"]] == ["oi", "D"]


async def test_many_at_once_are_one_new_reply(database_url: str) -> None:
    dictation = Dictation()
    async with (
        chat_host(database_url, dictation) as host,
        chat_host(database_url, dictation) as elsewhere,
    ):
        old = await answered(host, dictation, "oi", "A")
        path = f"/viva/chat/stream/{old}/again"
        asks = [
            asyncio.create_task(each.ana.post(path)) for each in (host, elsewhere) * 10
        ]
        reply = await dictation.begun()
        reply.say("B")
        await eventually(host.ana.snapshot, lambda s: s["messages"][-1]["conteudo"])
        reply.end()
        answers = await asyncio.gather(*asks)
        snapshot = await host.ana.snapshot()
    assert sorted({each.status for each in answers}) == [200, 409]
    assert [each.status for each in answers].count(200) == 1
    assert {each.json["code"] for each in answers if each.status == 409} <= {
        "not_newest", "reply_in_progress",
    }  # fmt: skip
    assert [m["conteudo"] for m in snapshot["messages"]] == ["oi", "B"]
    assert len(dictation.replies) == 2


async def test_it_works_on_any_process_and_a_message_comes_after_it(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with (
        chat_host(database_url, dictation) as host,
        chat_host(database_url, saying("de outro")) as elsewhere,
    ):
        old = await answered(host, dictation, "oi", "A")
        async with again(elsewhere.ana, old) as stream:
            new = (await stream.event()).data["message_id"]
            await stream.rest()
        async with host.ana.resume(new) as stream:
            events = [await stream.event(), *await stream.rest()]
        await answered(host, dictation, "e agora?", "C")
        snapshot = await elsewhere.ana.snapshot(limit=2)
    assert text_of(events) == "de outro"
    assert said(dictation.replies[-1]) == [
        ("user", "oi"), ("assistant", "de outro"), ("user", "e agora?"),
    ]  # fmt: skip
    assert [m["seq"] for m in snapshot["messages"]] == [3, 4]


async def test_it_is_a_live_reply_as_any_other(database_url: str) -> None:
    """The limits of a person count it, and the whole session is deleted with it."""
    dictation = Dictation()
    async with chat_host(database_url, dictation, live_replies_per_user=1) as host:
        old = await answered(host, dictation, "oi", "A")
        session = (await host.ana.snapshot())["session_id"]
        await host.ana.post("/viva/chat/session/new")
        async with host.ana.stream("em outra") as stream:
            await stream.event()
            other = await dictation.begun()
            assert await refused(host.ana, old) == (429, "too_many_replies")
            other.end()
            await stream.rest()
        async with again(host.ana, old) as stream:
            await stream.event()
            await dictation.begun()
            gone = await host.ana.request("DELETE", f"/viva/chat/sessions/{session}")
            await stream.rest()
        assert gone.status == 204
        assert await refused(host.ana, old) == (404, "message_not_found")
    assert (
        run_sql(
            database_url, f"SELECT id FROM viva.messages WHERE session_id = '{session}'"
        )
        == []
    )
