"""The OpenAI responder with a model on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from tests.fakes.client import asking, collect, conversation
from tests.fakes.model import FakeModel
from tests.fakes.script import Script, reply_to
from viva_server.errors import ConfigError
from viva_server.responders import (
    DEFAULT_SYSTEM_PROMPT,
    OpenAIResponder,
    model_session,
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with model_session() as session:
        yield session


async def test_the_whole_reply_arrives(session: aiohttp.ClientSession) -> None:
    async with FakeModel(Script(tokens=200)) as model:
        reply = await collect(OpenAIResponder(session, base_url=model.url, model="m"))
    assert (reply.text, reply.end) == (reply_to("oi", Script(tokens=200)), "stop")


async def test_the_model_is_asked_as_openai_says(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel() as model:
        base_url = URL(f"{model.url}/?api-version=1")
        responder = OpenAIResponder(
            session, base_url=base_url, model="viva-1", api_key="sk-test"
        )
        await collect(responder, conversation("oi", "olá", "Tudo bem?"))
    [request] = model.requests
    assert request.path == "/v1/chat/completions?api-version=1"
    assert request.headers["authorization"] == "Bearer sk-test"
    assert request.headers["accept-encoding"] == "identity"
    assert request.body == {
        "model": "viva-1",
        "stream": True,
        "messages": [
            {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
            {"role": "user", "content": "oi"},
            {"role": "assistant", "content": "olá"},
            {"role": "user", "content": "Tudo bem?"},
        ],
    }


async def test_the_settings_decide_what_is_sent(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel() as model:
        for role in ("developer", "user"):
            responder = asking(
                session,
                model,
                params={"temperature": 0.5, "stream_options": {"include_usage": True}},
                headers={"api-key": "azure", "Accept-Language": "pt"},
                system_prompt=lambda asked: f"Be kind to {asked.user_id}.",
                system_role=role,
            )
            await collect(responder, conversation("oi", "olá", "Tudo bem?"))
    developer, user = model.requests
    assert developer.headers["api-key"] == "azure"
    assert developer.headers["accept-language"] == "pt"
    assert developer.body == {
        "model": "fake",
        "stream": True,
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "developer", "content": "Be kind to u."},
            {"role": "user", "content": "oi"},
            {"role": "assistant", "content": "olá"},
            {"role": "user", "content": "Tudo bem?"},
        ],
    }
    assert user.body["messages"] == [
        {"role": "user", "content": "Be kind to u.\n\noi"},
        {"role": "assistant", "content": "olá"},
        {"role": "user", "content": "Tudo bem?"},
    ]


async def test_without_a_key_no_authorization_is_sent(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel() as model:
        await collect(asking(session, model))
    assert "authorization" not in model.requests[0].headers


async def test_text_is_given_on_as_soon_as_it_arrives(
    session: aiohttp.ClientSession,
) -> None:
    script = Script(cut="stall", cut_after=1)
    async with FakeModel(script) as model:
        stream = asking(session, model)(conversation("oi"))
        assert await anext(stream) == reply_to("oi", script)
        await stream.aclose()


async def test_one_connection_serves_reply_after_reply(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=3)) as model:
        for _ in range(5):
            assert (await collect(asking(session, model))).end == "stop"
        assert model.connections == 1


async def test_a_connection_is_kept_though_its_last_bytes_come_late(
    session: aiohttp.ClientSession,
) -> None:
    events = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
    async with FakeModel(Script(events=events, interval_ms=20)) as model:
        for _ in range(3):
            assert (await collect(asking(session, model))).text == "a"
        assert model.connections == 1


async def test_closing_the_generator_closes_the_models_connection(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=-1, interval_ms=5)) as model:
        stream = asking(session, model)(conversation("oi"))
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(1):
            await model.requests[0].closed.wait()
        assert model.requests[0].ended == "left"


@pytest.mark.parametrize("script", ["first_ms=60000", "cut=stall cut_after=1"])
async def test_a_cancelled_task_closes_the_models_connection(
    session: aiohttp.ClientSession, script: str
) -> None:
    async with FakeModel(Script.parse(script)) as model:
        task = asyncio.create_task(collect(asking(session, model)))
        await model.asked()
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        async with asyncio.timeout(1):
            await model.requests[0].closed.wait()


async def test_two_hundred_replies_at_once_do_not_wait_for_each_other(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(cut="stall", cut_after=1)) as model:
        responder = asking(session, model)
        streams = [responder(conversation(f"oi {n}")) for n in range(200)]
        texts = await asyncio.gather(*map(anext, streams))
        assert texts == [
            reply_to(f"oi {n}", Script(tokens=1)) for n in range(len(streams))
        ]
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("key", ["sk\r\nX: y", "sk-é", "sk\0"])
async def test_a_key_that_no_header_can_carry_is_refused_at_the_start(
    session: aiohttp.ClientSession, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIResponder(session, base_url=URL("http://m/v1"), model="m", api_key=key)
    assert key not in str(caught.value)


async def test_a_user_in_the_url_and_a_key_are_refused_at_the_start(
    session: aiohttp.ClientSession,
) -> None:
    with pytest.raises(ConfigError):
        OpenAIResponder(
            session, base_url=URL("http://u:p@m/v1"), model="m", api_key="sk"
        )


async def test_the_fake_model_runs_as_a_process_and_tells_what_it_saw(
    session: aiohttp.ClientSession,
) -> None:
    command = [sys.executable, "-m", "tests.fakes.model", "--script", "tokens=2"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = URL((await process.stdout.readline()).decode().strip())
        responder = OpenAIResponder(session, base_url=url, model="m")
        reply = await collect(responder, conversation("oi model:tokens=4"))
        async with session.post(url.with_path("/scripts"), data="mode=echo") as answer:
            [request] = await answer.json(content_type=None)
        echoed = await collect(responder, conversation("um dois"))
    finally:
        process.kill()
        await process.wait()
    assert reply.text == reply_to("oi model:tokens=4") == request["text"]
    assert (request["tokens"], request["ended"]) == (4, "complete")
    assert echoed.text == "um dois"
