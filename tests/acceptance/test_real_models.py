"""Answers as real servers send them, through the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.chat_host import Host, serving, settings
from tests.fakes.recorded import Case, RecordedModel, recorded_cases
from tests.postgres import PostgresServer
from tests.streams import text_of
from viva_server import create_app

RECORDED = recorded_cases()
CASES = {case.name: case for case in RECORDED}
# Their limits are 4 s for the first token and 3 s of silence; all times shrink alike.
SLOW_PACE = 0.4
PACE = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case: what the client saw, and what is stored."""

    seen: str
    last: dict[str, Any]
    stored: dict[str, Any]
    requests: int

    @property
    def end(self) -> str:
        return f"{self.stored['status']}, {self.stored['finish_reason']}"


async def _ask(host: Host, model: RecordedModel, name: str) -> Outcome:
    person = host.person(name)
    async with person.stream(name) as stream:
        events = await stream.rest()
    snapshot = await person.snapshot()
    [_, stored] = snapshot["messages"]
    return Outcome(text_of(events), events[-1].data, stored, model.asked[name])


async def play(
    database_url: str, cases: list[Case], *, pace: float, **limits: float
) -> dict[str, Outcome]:
    """Play cases side by side against one server; give what became of each."""
    async with RecordedModel([*cases, CASES["plain"]], pace=pace) as model:
        config = settings(database_url, model_url=model.url, model_name="m", **limits)
        async with serving(create_app(config)) as host:
            found = await asyncio.gather(
                *(_ask(host, model, case.name) for case in cases)
            )
    return dict(zip([case.name for case in cases], found, strict=True))


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def outcomes(postgres: PostgresServer) -> AsyncIterator[dict[str, Outcome]]:
    slow = [case for case in RECORDED if case.name.startswith("slow_")]
    others = [case for case in RECORDED if case not in slow]
    with postgres.database() as url:
        found = await asyncio.gather(
            play(url, others, pace=PACE),
            play(
                url,
                slow,
                pace=SLOW_PACE,
                model_first_token_seconds=4 * SLOW_PACE,
                model_idle_seconds=3 * SLOW_PACE,
            ),
        )
        yield found[0] | found[1]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_recorded_answer_is_told_and_stored_as_it_was(
    outcomes: dict[str, Outcome], name: str
) -> None:
    outcome, right = outcomes[name], CASES[name].right
    assert outcome.stored["status"] == right["status"]
    assert outcome.stored["conteudo"] == right["text"]
    assert outcome.seen == right["text"]
    if "finish_reason" in right:
        assert outcome.stored["finish_reason"] == right["finish_reason"]
    if right["status"] != "failed":
        assert outcome.last["status"] == right["status"]
        assert outcome.last["finish_reason"] == outcome.stored["finish_reason"]
