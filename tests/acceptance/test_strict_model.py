"""Sessions with a model's server that refuses what many servers refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from tests.chat_host import Person, running, serving, settings
from tests.streams import text_of
from viva_server import create_app

MAX_CHARS = 20_000


class StrictServer:
    """Takes roles that alternate, from the user on, and 20,000 characters at most.

    A question may begin with what happens to it: `fail` (401, without another try) or
    `cut` (text, and no end).
    """

    def __init__(self) -> None:
        self.requests: list[list[dict[str, str]]] = []
        self.takes_nothing = False

    @property
    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        system, *messages = (await request.json())["messages"]
        self.requests.append(messages)
        question = messages[-1]["content"].rpartition("\n\n")[2]
        if question.startswith("fail"):
            return web.json_response({"error": {"message": "no"}}, status=401)
        if self.refuses(system, messages):
            return web.json_response({"error": {"message": "too much"}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        delta = '{"choices":[{"index":0,"delta":{"content":"%s"}}]}'
        await response.write(
            f"data: {delta % f'resposta a {question[:9]}'}\n\n".encode()
        )
        if not question.startswith("cut"):
            await response.write(b'data: {"choices":[{"finish_reason":"stop"}]}\n\n')
            await response.write(b"data: [DONE]\n\n")
        return response

    def refuses(self, system: dict[str, str], messages: list[dict[str, str]]) -> bool:
        roles = [message["role"] for message in messages]
        chars = sum(len(message["content"]) for message in [system, *messages])
        return (
            self.takes_nothing
            or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]
            or chars > MAX_CHARS
        )


@pytest.fixture
async def strict() -> StrictServer:
    return StrictServer()


@asynccontextmanager
async def person(
    database_url: str, strict: StrictServer, **changes: Any
) -> AsyncIterator[Person]:
    """Run a server on the strict one."""
    async with running(strict.app) as origin:
        config = settings(
            database_url, model_url=URL(f"{origin}/v1"), model_name="strict", **changes
        )
        async with serving(create_app(config)) as host:
            yield host.ana


async def test_sixty_questions_are_answered_whatever_failed_between(
    database_url: str, strict: StrictServer
) -> None:
    async with person(database_url, strict) as ana:
        for number in range(60):
            kind = {3: "fail", 4: "fail", 7: "cut"}.get(number % 10, "ask")
            question = f"{kind} {number} ".ljust(300 + 97 * number % 2900, "x")
            before = len(strict.requests)
            async with ana.stream(question) as stream:
                *events, last = await stream.rest()
            asked = strict.requests[before:]
            assert len(asked) <= 3
            assert all(each[-1]["content"].endswith(question) for each in asked)
            if kind == "fail":
                assert last.data["code"] == "upstream_refused"
                continue
            assert last.data["status"] == ("partial" if kind == "cut" else "complete")
            assert text_of(events) == f"resposta a {question[:9]}"
        snapshot = await ana.snapshot(limit=250)
    assert [m["status"] for m in snapshot["messages"]].count("failed") == 12
    # Some histories were too long, and most of a session was still seen.
    assert len(strict.requests) > 60
    assert max(len(each) for each in strict.requests) > 10


async def test_what_is_refused_is_asked_with_half_and_then_with_the_question(
    database_url: str, strict: StrictServer
) -> None:
    async with person(database_url, strict) as ana:
        for word in ("um", "dois", "três"):
            await ana.ask(word)
        del strict.requests[:]
        strict.takes_nothing = True
        answer = await ana.ask("quatro")
    assert (answer.status, answer.json["code"]) == (502, "upstream_refused")
    assert answer.json["retryable"] is False
    assert [[m["content"] for m in each] for each in strict.requests] == [
        ["um", "resposta a um", "dois", "resposta a dois", "três", "resposta a três",
         "quatro"],
        ["três", "resposta a três", "quatro"],
        ["quatro"],
    ]  # fmt: skip


async def test_a_question_without_a_history_is_asked_once(
    database_url: str, strict: StrictServer
) -> None:
    strict.takes_nothing = True
    async with person(database_url, strict) as ana:
        assert (await ana.ask("oi")).status == 502
    assert len(strict.requests) == 1


async def test_the_history_is_kept_within_its_characters_but_the_question_always(
    database_url: str, strict: StrictServer
) -> None:
    async with person(database_url, strict, history_chars=40) as ana:
        await ana.ask("x" * 21)
        await ana.ask("dois")  # and "resposta a xxxxxxxxx" before it: 24 of 40
        await ana.ask("três")  # "resposta a dois", "dois", "três": 23; then 43
        await ana.ask("y" * 100)
    assert [[m["content"] for m in each] for each in strict.requests[1:]] == [
        ["dois"],
        ["dois", "resposta a dois", "três"],
        ["y" * 100],
    ]
