"""Coming back to a reply, stopping it, and asking twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.chat_host import Host, Person, chat_host, eventually
from tests.dictation import Dictation, saying
from tests.streams import parse_events, text_of
from viva_server import ResponderError

UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def asked(person: Person, dictation: Dictation, message: str, text: str) -> str:
    """Have a message answered with a text; give the id of the reply."""
    async with person.stream(message) as stream:
        reply = await dictation.begun()
        reply.say(text)
        reply.end()
        message_id: str = (await stream.event()).data["message_id"]
        await stream.rest()
    return message_id


@pytest.mark.parametrize(
    ("cursor", "offset"),
    [
        ("0", 0),
        ("3", 3),
        ("9", 9),
        ("09", 0),
        ("10", 10),
        ("11", 0),
        ("-1", 0),
        ("999999999", 0),
        ("٣", 0),
        (None, 0),
    ],
)
async def test_a_resume_goes_on_at_the_cursor_and_says_where(
    database_url: str, cursor: str | None, offset: int
) -> None:
    text = "ã😀bcdefghi"
    async with chat_host(database_url, saying(*text)) as host:
        message_id = (await host.ana.ask("oi")).json["message_id"]
        given = None if cursor is None else f"{message_id}:{cursor}"
        path = f"/viva/chat/stream/{message_id}"
        query = {} if given is None else {"after": given}
        answer = await host.ana.get(path, params=query)
        async with host.ana.resume(message_id) as stream:
            accepted = await stream.event()
            whole = await stream.rest()
    assert accepted.data["resumed"] is True
    assert text_of(whole) == text
    first, *rest = parse_events(answer.body)
    assert first.id == f"{message_id}:{offset}"
    assert (first.data["offset"], first.data["resumed"]) == (offset, True)
    assert text_of(rest) == text[offset:]
    assert rest[-1].data["done"] is True


async def test_a_resume_of_a_live_reply_goes_on_with_it(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            message_id = (await stream.event()).data["message_id"]
            reply = await dictation.begun()
            reply.say("abc")
            cursor = (await stream.event()).id
        reply.say("def")
        async with host.ana.resume(message_id, cursor) as stream:
            accepted = await stream.event()
            text = await stream.read_text(3)
            reply.say("ghi")
            reply.end()
            events = await stream.rest()
    assert accepted.id == cursor
    assert text + text_of(events) == "defghi"
    assert events[-1].data["status"] == "complete"


async def test_a_cursor_at_the_end_is_answered_204_for_ever(database_url: str) -> None:
    async with chat_host(database_url, saying("oi")) as host:
        message_id = (await host.ana.ask("oi")).json["message_id"]
        path = f"/viva/chat/stream/{message_id}"
        for name in ("header", "query"):
            cursor = f"{message_id}:end"
            is_header = name == "header"
            answer = await host.ana.get(
                path,
                headers={"Last-Event-ID": cursor} if is_header else {},
                params={} if is_header else {"after": cursor},
            )
            assert (answer.status, answer.body) == (204, b"")
        other = await host.ana.get(path, headers={"Last-Event-ID": f"{UNKNOWN}:end"})
    assert other.status == 200


async def test_a_post_with_the_cursor_of_the_newest_reply_resumes_it(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            first = (await stream.event()).data
            reply = await dictation.begun()
            reply.say("abc")
            cursor = (await stream.event()).id
        async with host.ana.stream("oi", headers={"Last-Event-ID": cursor}) as stream:
            accepted = (await stream.event()).data
            reply.say("def")
            reply.end()
            events = await stream.rest()
        snapshot = await host.ana.snapshot()
    assert accepted == {**first, "offset": 3, "resumed": True}
    assert text_of(events) == "def"
    assert len(snapshot["messages"]) == 2


async def test_an_old_cursor_never_loses_a_new_message(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        first = await asked(host.ana, dictation, "um", "A")
        newest = await asked(host.ana, dictation, "dois", "B")
        for message, cursor in (
            ("três", f"{newest}:1"),  # another body
            ("dois", f"{first}:1"),  # not the newest reply
            ("quatro", f"{newest}:end"),
            ("quatro", "garbage"),
            ("cinco", f"{UNKNOWN}:0"),
        ):
            before = len((await host.ana.snapshot())["messages"])
            headers = {"Last-Event-ID": cursor}
            async with host.ana.stream(message, headers=headers) as stream:
                accepted = (await stream.event()).data
                reply = await dictation.begun()
                reply.say("C")
                reply.end()
                await stream.rest()
            assert "resumed" not in accepted
            assert len((await host.ana.snapshot())["messages"]) == before + 2


async def test_any_number_of_readers_follow_one_reply(database_url: str) -> None:
    dictation = Dictation()

    async def read(host: Host, message_id: str) -> str:
        async with host.ana.resume(message_id) as stream:
            return text_of(await stream.rest())

    async with (
        chat_host(database_url, dictation) as host,
        host.ana.stream("oi") as stream,
    ):
        message_id = (await stream.event()).data["message_id"]
        reply = await dictation.begun()
        reads = [asyncio.create_task(read(host, message_id)) for _ in range(20)]
        for word in ("um ", "dois ", "três"):
            await asyncio.sleep(0.02)
            reply.say(word)
        reply.end()
        texts = await asyncio.gather(*reads)
        events = await stream.rest()
    assert {*texts, text_of(events)} == {"um dois três"}


async def test_a_stop_stores_what_there_is_and_is_idempotent(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            message_id = (await stream.event()).data["message_id"]
            reply = await dictation.begun()
            reply.say("abc")
            await stream.event()
            stopped = await host.ana.post(f"/viva/chat/stream/{message_id}/stop")
            [done] = await stream.rest()
        await asyncio.wait_for(reply.closed.wait(), 10)
        again = await host.ana.post(f"/viva/chat/stream/{message_id}/stop")
        snapshot = await host.ana.snapshot()
    assert stopped.status == 200
    assert stopped.json == again.json == snapshot["messages"][-1]
    assert stopped.json["conteudo"] == "abc"
    assert stopped.json["status"] == "partial"
    assert done.data["finish_reason"] == stopped.json["finish_reason"] == "stopped"


async def test_a_stop_before_the_first_word_ends_with_done(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            message_id = (await stream.event()).data["message_id"]
            await dictation.begun()
            await host.ana.post(f"/viva/chat/stream/{message_id}/stop")
            [done] = await stream.rest()
    assert done.data["done"] is True
    assert (done.data["status"], done.data["finish_reason"]) == ("failed", "stopped")


async def test_the_same_key_is_one_reply_however_many_come_at_once(
    database_url: str,
) -> None:
    dictation = Dictation()

    async def ask(host: Host) -> tuple[str, str]:
        headers = {"Idempotency-Key": "k"}
        async with host.ana.stream("oi", headers=headers) as stream:
            events = [await stream.event(), *await stream.rest()]
            return events[0].data["message_id"], text_of(events)

    async with chat_host(database_url, dictation) as host:
        asks = [asyncio.create_task(ask(host)) for _ in range(10)]
        reply = await dictation.begun()
        reply.say("abc")
        reply.end()
        answers = await asyncio.gather(*asks)
        later = await host.ana.post(
            "/viva/chat", {"mensagem": "oi"}, headers={"Idempotency-Key": "k"}
        )
        snapshot = await host.ana.snapshot()
    assert len(dictation.replies) == 1
    assert set(answers) == {(snapshot["messages"][-1]["id"], "abc")}
    assert later.json["resposta"] == "abc"
    assert len(snapshot["messages"]) == 2


@pytest.mark.parametrize(
    "other", [{"mensagem": "tchau"}, {"modo": "x"}, {"session_id": "own"}]
)
async def test_a_key_with_another_body_is_422(
    database_url: str, other: dict[str, str]
) -> None:
    async with chat_host(database_url, saying("abc")) as host:
        key = {"Idempotency-Key": "k"}
        first = await host.ana.post("/viva/chat", {"mensagem": "oi"}, headers=key)
        if "session_id" in other:
            other = {"session_id": first.json["session_id"]}
        body = {"mensagem": "oi", **other}
        answer = await host.ana.post("/viva/chat", body, headers=key)
        # `contexto` and `prompt_extra` are no part of the body that has to be equal.
        body = {"mensagem": "oi", "contexto": [1], "prompt_extra": "x"}
        same = await host.ana.post("/viva/chat", body, headers=key)
        bia = await host.person("bia").post("/viva/chat", body, headers=key)
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert same.json == first.json
    assert bia.json["message_id"] != first.json["message_id"]


async def test_the_retry_of_a_failed_reply_stores_the_message_once(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            first = (await stream.event()).data
            (await dictation.begun()).end(ResponderError("upstream_unavailable"))
            [error] = await stream.rest()
        # The old web client now posts the same text to the route without a stream.
        retry = asyncio.create_task(host.ana.ask("oi"))
        reply = await dictation.begun()
        reply.say("agora sim")
        reply.end()
        answer = await retry
        snapshot = await host.ana.snapshot()
    assert error.data["code"] == "upstream_unavailable"
    assert answer.json["user_message_id"] == first["user_message_id"]
    assert answer.json["message_id"] != first["message_id"]
    assert [(m["tipo"], m["status"]) for m in snapshot["messages"]] == [
        ("usuario", "complete"),
        ("ia", "failed"),
        ("ia", "complete"),
    ]
    assert [m["seq"] for m in snapshot["messages"]] == [1, 2, 3]


async def test_a_read_live_reply_refuses_a_message_and_an_unread_one_yields(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            message_id = (await stream.event()).data["message_id"]
            reply = await dictation.begun()
            reply.say("abc")
            await stream.event()
            refused = await host.ana.ask("outra")
        async with host.ana.stream("outra") as stream:
            await stream.event()
            second = await dictation.begun()
            second.say("D")
            second.end()
            await stream.rest()
        snapshot = await host.ana.snapshot()
    assert refused.status == 409
    assert refused.json["code"] == "reply_in_progress"
    assert refused.json["message_id"] == message_id
    assert refused.json["resume_url"] == f"/api/v1/viva/chat/stream/{message_id}"
    assert [m["conteudo"] for m in snapshot["messages"]] == ["oi", "abc", "outra", "D"]
    assert snapshot["messages"][1]["finish_reason"] == "superseded"
    assert snapshot["messages"][1]["status"] == "partial"


@pytest.mark.parametrize("grace", [0.0, 0.3])
async def test_a_reply_that_nobody_comes_back_to_is_disconnected(
    database_url: str, grace: float
) -> None:
    dictation = Dictation()
    async with chat_host(
        database_url, dictation, disconnect_grace_seconds=grace
    ) as host:
        async with host.ana.stream("oi") as stream:
            await stream.event()
            reply = await dictation.begun()
            reply.say("abc")
            await stream.event()
        await asyncio.wait_for(reply.closed.wait(), 10)
        snapshot = await eventually(
            host.ana.snapshot, lambda seen: seen["active_reply"] is None
        )
    stored = snapshot["messages"][-1]
    assert (stored["conteudo"], stored["status"]) == ("abc", "partial")
    assert stored["finish_reason"] == "disconnected"


async def test_an_endless_grace_finishes_every_reply(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(
        database_url, dictation, disconnect_grace_seconds=float("inf")
    ) as host:
        async with host.ana.stream("oi") as stream:
            await stream.event()
            reply = await dictation.begun()
        await asyncio.sleep(0.5)
        reply.say("para ninguém")
        reply.end()
        snapshot = await eventually(
            host.ana.snapshot, lambda seen: seen["active_reply"] is None
        )
    assert snapshot["messages"][-1]["conteudo"] == "para ninguém"
    assert snapshot["messages"][-1]["status"] == "complete"
