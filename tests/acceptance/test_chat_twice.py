"""Asking twice: keys, retries, and the one live reply of a session."""

from __future__ import annotations

import asyncio

import pytest

from tests.chat_host import Host, chat_host
from tests.dictation import Dictation, saying
from tests.streams import text_of
from viva_server import ResponderError


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
        body: dict[str, object] = {"mensagem": "oi", **other}
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
