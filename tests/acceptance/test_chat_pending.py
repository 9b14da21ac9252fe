"""503 and 504 on a POST: whether the same request may be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import psycopg2
import pytest

from tests.chat_host import Answer, Host, chat_host
from tests.dictation import Dictation, saying
from tests.integration.chat.looks import count, waits_for_a_lock
from tests.postgres import PostgresServer, Relay, relaying, run_sql
from tests.streams import text_of
from tests.waiting import until
from viva_server.chat import service

DOORS = ["/viva/chat", "/viva/chat/stream"]
ORIGIN = "https://loja.example"


@pytest.fixture
async def relay(postgres: PostgresServer) -> AsyncIterator[Relay]:
    async with relaying(postgres) as relay:
        yield relay


@pytest.fixture
async def host(
    relay: Relay, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    monkeypatch.setattr(service, "_ASK_SECONDS", 1.0)
    url = relay.url(database_url)
    async with chat_host(url, saying("Agora sim."), cors_origins=(ORIGIN,)) as host:
        yield host


async def unanswered(
    url: str, relay: Relay, host: Host, path: str, **key: str
) -> Answer:
    """Post so that the message is stored and the database's answer is lost."""
    assert (await host.ana.ask("Oi")).status == 200
    with closing(psycopg2.connect(url)) as blocker, blocker.cursor() as cursor:
        cursor.execute("SELECT id FROM viva.processes FOR UPDATE")
        headers = {**key, "Origin": ORIGIN}
        body = {"mensagem": "E agora?"}
        posting = asyncio.create_task(host.ana.post(path, body, headers=headers))
        await until(lambda: waits_for_a_lock(url, "live_replies"))
        relay.is_deaf = True
    await until(lambda: count(url, "live_replies") == 1)
    answer = await posting
    relay.is_deaf = False
    relay.cut()
    return answer


@pytest.mark.parametrize("path", DOORS)
async def test_a_message_that_may_be_stored_is_504_with_the_way_to_its_reply(
    database_url: str, relay: Relay, host: Host, path: str
) -> None:
    answer = await unanswered(database_url, relay, host, path)

    assert (answer.status, answer.json["code"]) == (504, "reply_pending")
    assert answer.json["retryable"] is False
    assert "Retry-After" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    message_id = answer.headers["Viva-Message-Id"]
    assert answer.json["message_id"] == message_id
    assert answer.json["resume_url"] == answer.headers["Content-Location"]
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Viva-Message-Id", "Content-Location", "Retry-After"} <= set(exposed)
    await until(lambda: count(database_url, "live_replies") == 0)
    location = host.origin + answer.headers["Content-Location"]
    async with host.session.get(location, headers=host.ana.headers) as response:
        assert response.status == 200
        assert "Agora sim." in await response.text()
    asked = "SELECT count(*) FROM viva.messages WHERE content = 'E agora?'"
    assert run_sql(database_url, asked) == [(1,)]


@pytest.mark.parametrize("path", DOORS)
async def test_with_a_key_it_is_503_since_it_would_be_found(
    database_url: str, relay: Relay, host: Host, path: str
) -> None:
    key = {"Idempotency-Key": "k"}
    answer = await unanswered(database_url, relay, host, path, **key)

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    await until(lambda: count(database_url, "live_replies") == 0)
    async with host.ana.stream("E agora?", headers=key) as stream:
        assert text_of(await stream.rest()) == "Agora sim."


async def test_where_nothing_was_sent_it_is_503(
    database_url: str, relay: Relay, host: Host
) -> None:
    assert (await host.ana.ask("Oi")).status == 200
    relay.is_deaf = True
    answer = await host.ana.ask("E agora?")
    relay.is_deaf = False
    relay.cut()

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert count(database_url, "live_replies") == 0


@pytest.mark.parametrize(
    ("key", "status"), [({}, 504), ({"Idempotency-Key": "k"}, 503)]
)
async def test_an_answer_whose_text_cannot_be_followed_any_more(
    database_url: str, key: dict[str, str], status: int
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        body = {"mensagem": "Oi"}
        posting = asyncio.create_task(host.ana.post("/viva/chat", body, headers=key))
        (await dictation.begun()).say("antes")
        run_sql(database_url, "UPDATE viva.processes SET dead_at = clock_timestamp()")
        answer = await posting

    assert answer.status == status
    assert ("Viva-Message-Id" in answer.headers) is (status == 504)
