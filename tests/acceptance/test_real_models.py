"""Answers as real servers send them, through the whole server."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.chat_host import Host, serving, settings
from tests.documents import blocks_of
from tests.fakes.recorded import Case, RecordedModel, recorded_cases
from tests.integration.whatsapp.lab import lab, row
from tests.model_judge import judged, table
from tests.postgres import PostgresServer
from tests.streams import text_of
from viva_server import Config, create_app
from viva_server.app import SERVICES
from viva_server.responders import OpenAIResponder, model_session
from viva_server.whatsapp.rules import FAILURE_TEXT

RECORDED = recorded_cases()
CASES = {case.name: case for case in RECORDED}
# Their limits are 4 s for the first token and 3 s of silence; all times shrink alike.
SLOW_PACE = 0.4
PACE = 0.2
# A busy machine gets no more of them started within the time that a start may take.
AT_ONCE = 12


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
            some = asyncio.Semaphore(AT_ONCE)

            async def ask(case: Case) -> Outcome:
                async with some:
                    return await _ask(host, model, case.name)

            found = await asyncio.gather(*map(ask, cases))
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


# One model call each, and what the person gets: the text, or the polite failure.
ON_WHATSAPP = (
    *("plain", "no_done", "finish_length", "finish_SAFETY", "finish_content_filter"),
    *("finish_dict_sglang", "finish_every_chunk_fast", "text_then_tool_calls_finish"),
    *("json_whole", "gzip", "redirect_307", "mistral_parts_thinking", "think_tags"),
    *("reasoning_content", "message_not_delta", "error_null_everywhere", "crlf"),
    *("lone_surrogate", "content_filter_no_text", "finish_length_no_text_reasoning"),
    *("always_429_insufficient_quota", "s401_text", "s403_html", "json_error_200"),
)


async def test_on_whatsapp_each_is_one_model_call_and_the_right_text(
    database_url: str,
) -> None:
    async with (
        RecordedModel(RECORDED) as model,
        model_session() as session,
        lab(
            database_url,
            respond=OpenAIResponder(session, base_url=model.url, model="m"),
        ) as site,
    ):
        asking = {}
        for number, name in enumerate(ON_WHATSAPP):
            jid = f"55119{80000000 + number}@s.whatsapp.net"
            asking[jid] = name
            message = row(name, f"ID{number}", at=time.time(), remoteJid=jid)
            site.upsert(message)
        await site.sent(len(ON_WHATSAPP))
        dead = "SELECT count(*) FROM viva.whatsapp_turns WHERE state = 'dead'"
        await site.stored(dead, sum(not CASES[n].right["text"] for n in ON_WHATSAPP))
        got = {asking[sent.jid]: sent.text for sent in site.evolution.sent}
    assert got == {
        name: CASES[name].right["text"].strip() or FAILURE_TEXT for name in ON_WHATSAPP
    }
    # The redirect is one call that is sent on to where the case "plain" is.
    assert {name: model.asked[name] for name in ON_WHATSAPP} == {
        name: 2 if name == "plain" else 1 for name in ON_WHATSAPP
    }


async def test_the_count_of_tokens_is_stored_and_counted(database_url: str) -> None:
    async with RecordedModel(RECORDED) as model:
        config = settings(database_url, model_url=model.url, model_name="m")
        app = create_app(config)
        async with serving(app) as host:
            outcome = await _ask(host, model, "usage_empty_choices")
            counted = app[SERVICES].runtime.counters.tokens
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert outcome.stored["meta"] == {"usage": usage}
    assert counted == {"prompt": 1, "completion": 2}


DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by tests/acceptance/test_real_models.py -->\n", "<!-- end -->"


async def test_the_table_in_the_documentation_is_what_the_cases_give(
    outcomes: dict[str, Outcome],
) -> None:
    ours = {n: (each.end, each.stored["conteudo"]) for n, each in outcomes.items()}
    made = table(ours, await judged(RECORDED, PACE))
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    committed, _, behind = rest.partition(END)
    if os.environ.get("WRITE_TABLE"):
        changed = f"{before}{BEGIN}{made}\n{END}{behind}"
        DOCUMENT.write_bytes(changed.encode())
        return
    assert committed.strip() == made


BLOCKS = [each.code for each in blocks_of(DOCUMENT) if each.language == "sh"]


@pytest.mark.parametrize("block", BLOCKS)
async def test_each_configuration_in_the_documentation_can_be_used(block: str) -> None:
    variables = dict(
        shlex.split(line)[0].split("=", 1) for line in block.strip().splitlines()
    )
    assert all(name.startswith("VIVA_MODEL_") for name in variables)
    config = Config.from_env(variables)
    assert config.model_url is not None
    assert config.model_url.scheme in {"http", "https"}
    async with model_session() as session:
        OpenAIResponder.of(config, session)  # raises where a header cannot be sent


def test_there_is_a_configuration_for_each_server() -> None:
    assert len(BLOCKS) == 11
