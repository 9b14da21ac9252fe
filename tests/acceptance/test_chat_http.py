"""Asking over HTTP: the stream's grammar and headers, and the answer in one piece."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import UUID

import pytest

from tests.chat_host import Person, chat_host
from tests.dictation import Dictation, saying
from tests.streams import Event, text_of
from viva_server import EndOfReply, ResponderError


async def streamed(person: Person, message: str) -> list[Event]:
    async with person.stream(message) as stream:
        return await stream.rest()


async def test_a_stream_is_accepted_then_text_then_done(database_url: str) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            accepted = await stream.event()
            reply = await dictation.begun()
            reply.say("Olá, ")
            first = await stream.event()
            reply.say("Ana 😀")
            second = await stream.event()
            reply.end()
            rest = await stream.rest()
        snapshot = await host.ana.snapshot()
    user, answer = snapshot["messages"]
    assert accepted.data == {
        "accepted": True,
        "session_id": snapshot["session_id"],
        "message_id": answer["id"],
        "user_message_id": user["id"],
        "offset": 0,
    }
    assert (accepted.id, accepted.retry) == (f"{answer['id']}:0", 1000)
    assert (first.id, first.data) == (f"{answer['id']}:5", {"content": "Olá, "})
    # One emoji is one code point, though it is two UTF-16 units and four bytes.
    assert (second.id, second.data) == (f"{answer['id']}:10", {"content": "Ana 😀"})
    assert rest == [
        Event(
            f"{answer['id']}:end",
            {
                "done": True,
                "session_id": snapshot["session_id"],
                "message_id": answer["id"],
                "status": "complete",
                "finish_reason": "stop",
                "chars": 10,
                "sha256": hashlib.sha256("Olá, Ana 😀".encode()).hexdigest(),
                "message_count": 2,
            },
        )
    ]
    assert answer["conteudo"] == "Olá, Ana 😀"


async def test_the_bytes_of_a_stream_have_lf_only_and_no_event_line(
    database_url: str,
) -> None:
    async with (
        chat_host(database_url, saying("um\r\ndois\u2028três\x85\n\n")) as host,
        host.ana.stream("oi") as stream,
    ):
        events = await stream.rest()
        raw = stream.raw
    assert b"\r" not in raw
    assert not [line for line in raw.split(b"\n") if line.startswith(b"event")]
    # Python's clients cut lines with splitlines, which knows more ends than LF.
    assert raw.decode().splitlines() == raw.decode().split("\n")[:-1]
    assert text_of(events) == "um\r\ndois\u2028três\x85\n\n"


async def test_a_stream_has_the_headers_that_proxies_and_clients_need(
    database_url: str,
) -> None:
    async with (
        chat_host(database_url, saying("oi")) as host,
        host.ana.stream("oi", headers={"Accept-Encoding": "gzip, br"}) as stream,
    ):
        accepted = await stream.event()
        message_id = accepted.data["message_id"]
        headers = stream.headers
        await stream.rest()
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers.getall("Cache-Control") == ["no-store, no-transform"]
    assert headers["X-Accel-Buffering"] == "no"
    assert headers.getall("X-Content-Type-Options") == ["nosniff"]
    assert headers["Viva-Message-Id"] == message_id
    assert headers["Content-Location"] == f"/api/v1/viva/chat/stream/{message_id}"
    assert "Content-Encoding" not in headers


async def test_ids_are_uuids_and_the_person_may_choose_the_session(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("oi")) as host:
        first = (await host.ana.ask("a")).json
        new = (await host.ana.post("/viva/chat/session/new", {})).json
        newest = (await host.ana.ask("b")).json
        back = (await host.ana.ask("c", session_id=first["session_id"])).json
        after = (await host.ana.ask("d")).json
    assert newest["session_id"] == new["session_id"] != first["session_id"]
    # The newest session is the one that something happened in last.
    assert back["session_id"] == after["session_id"] == first["session_id"]
    assert str(UUID(first["message_id"])) == first["message_id"]


async def test_an_answer_in_one_piece_is_the_stored_reply(database_url: str) -> None:
    async with chat_host(database_url, saying("Bom ", "dia")) as host:
        answer = await host.ana.ask("oi", modo="curto", contexto=[1, {"a": 2}])
        snapshot = await host.ana.snapshot()
    user, reply = snapshot["messages"]
    assert answer.status == 200
    assert answer.json == {
        "resposta": "Bom dia",
        "midia": [],
        "session_id": snapshot["session_id"],
        "message_id": reply["id"],
        "user_message_id": user["id"],
        "status": "complete",
        "finish_reason": "stop",
    }
    assert user["meta"] == {"contexto_len": 2}
    assert [user["seq"], reply["seq"]] == [1, 2]
    assert [user["modo"], reply["modo"]] == ["curto", "curto"]


async def test_a_model_that_fails_without_text_is_a_502_with_its_code(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            accepted = await stream.event()
            (await dictation.begun()).end(ResponderError("upstream_timeout"))
            [error] = await stream.rest()

        async def respond_again() -> None:
            (await dictation.begun()).end(ResponderError("upstream_timeout"))

        task = asyncio.create_task(respond_again())
        answer = await host.ana.ask("outra coisa")
        await task
    message_id = accepted.data["message_id"]
    assert error.id == f"{message_id}:end"
    assert error.data.keys() == {
        "error",
        "code",
        "retryable",
        "session_id",
        "message_id",
    }
    assert (error.data["code"], error.data["retryable"]) == ("upstream_timeout", True)
    assert answer.status == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "upstream_timeout"
    assert str(UUID(answer.json["message_id"])) != message_id


@pytest.mark.parametrize(
    ("error", "status", "finish_reason"),
    [
        (ResponderError("upstream_unavailable"), "partial", "upstream_error"),
        (RuntimeError("a defect of the host"), "partial", "upstream_error"),
        (EndOfReply("length"), "complete", "length"),
    ],
)
async def test_a_reply_that_breaks_off_keeps_its_text(
    database_url: str, error: BaseException, status: str, finish_reason: str
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        async with host.ana.stream("oi") as stream:
            await stream.event()
            reply = await dictation.begun()
            reply.say("um pedaço")
            reply.end(error)
            events = await stream.rest()
        snapshot = await host.ana.snapshot()
    done = events[-1].data
    assert done["done"] is True
    assert (done["status"], done["finish_reason"]) == (status, finish_reason)
    stored = snapshot["messages"][-1]
    assert stored["conteudo"] == text_of(events) == "um pedaço"
    assert (stored["status"], stored["finish_reason"]) == (status, finish_reason)


async def test_an_answer_in_one_piece_that_breaks_off_is_200_and_partial(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("abc"), max_reply_chars=2) as host:
        answer = await host.ana.ask("oi")
    assert answer.status == 200
    assert answer.json["resposta"] == "ab"
    assert answer.json["status"] == "partial"
    assert answer.json["finish_reason"] == "limit"


async def test_a_reply_without_a_word_has_failed(database_url: str) -> None:
    async with chat_host(database_url, saying()) as host:
        events = await streamed(host.ana, "oi")
        snapshot = await host.ana.snapshot()
    assert events[-1].data["code"] == "upstream_empty"
    assert snapshot["messages"][-1]["status"] == "failed"
    assert snapshot["messages"][-1]["finish_reason"] == "upstream_error"


ODD_TEXTS = {
    "nul": (("a\x00b",), "a\ufffdb"),
    "lone surrogates": (("a\ud800", "b\udc00"), "a\ufffdb\ufffd"),
    "a pair in two deltas": (("a\ud83d", "\ude00b"), "a😀b"),
    "a high one at the end": (("a", "\ud83d"), "a\ufffd"),
    "line separators": (("a\u2028b\u2029c\x85d",), "a\u2028b\u2029c\x85d"),
    "empty deltas": (("", "a", "", "b", ""), "ab"),
    "controls": (("\x01\x1f\x7f\t\r\n\\\"'",), "\x01\x1f\x7f\t\r\n\\\"'"),
    "a byte order mark": (("\ufeffa",), "\ufeffa"),
    "code points": (("e\u0301", "👩‍👩‍👧", "😀"), "e\u0301👩‍👩‍👧😀"),
    "100,000 characters": (("ã😀" * 500,) * 100, "ã😀" * 50_000),
}


@pytest.mark.parametrize("name", ODD_TEXTS)
async def test_what_a_model_sends_arrives_and_is_stored_the_same(
    database_url: str, name: str
) -> None:
    deltas, text = ODD_TEXTS[name]
    async with chat_host(database_url, saying(*deltas)) as host:
        events = await streamed(host.ana, "oi")
        snapshot = await host.ana.snapshot()
    assert text_of(events) == snapshot["messages"][-1]["conteudo"] == text
    done = events[-1].data
    assert done["chars"] == len(text)
    assert done["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    length = 0
    for event in events[1:-1]:
        length += len(event.data["content"])
        assert event.offset == str(length)


async def test_the_model_sees_the_session_without_failed_replies(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation, history_messages=4) as host:
        for message, reply in (("a", "A"), ("b", ""), ("c", "C"), ("d", "D")):
            async with host.ana.stream(message, modo="x") as stream:
                dictated = await dictation.begun()
                dictated.say(reply)
                dictated.end()
                await stream.rest()
    seen = dictation.replies[2].conversation
    assert [m.content for m in seen.messages] == ["a", "A", "b\n\nc"]
    assert [m.role for m in seen.messages] == ["user", "assistant", "user"]
    assert (seen.user_id, seen.channel, seen.modo) == ("ana", "web", "x")
    assert [m.content for m in dictation.replies[3].conversation.messages] == [
        "b\n\nc",
        "C",
        "d",
    ]
