"""A send ends in the one outcome that its answer allows, for every generation."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution, Generation
from tests.fakes.evolution_faults import FAULTS, Fault, meta_refusal
from tests.programs import free_port
from tests.waiting import until
from viva_server.errors import ConfigError
from viva_server.whatsapp.evolution.client import EvolutionClient, SendOutcome

GENERATIONS: list[Generation] = ["1", "2", "go"]


@pytest.fixture
async def evolution() -> AsyncIterator[FakeEvolution]:
    async with FakeEvolution() as running:
        yield running


@pytest.fixture
async def client(evolution: FakeEvolution) -> AsyncIterator[EvolutionClient]:
    client = EvolutionClient(evolution.url, evolution.api_key, seconds=15.0)
    yield client
    await client.close()


@pytest.fixture
async def hasty(evolution: FakeEvolution) -> AsyncIterator[EvolutionClient]:
    """A client that gives up soon, for what never answers."""
    client = EvolutionClient(evolution.url, evolution.api_key, seconds=0.5)
    yield client
    await client.close()


async def send(client: EvolutionClient, text: str = "Olá!") -> SendOutcome:
    return await client.send_text(INSTANCE, PERSON, text)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_text_reaches_the_whole_jid_in_every_generation(
    generation: Generation, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = generation

    outcome = await send(client, "Olá, çã 👋\n\n2ª linha")

    (sent,) = evolution.sent
    assert outcome == SendOutcome("sent", sent.message_id)
    assert (sent.instance, sent.jid) == (INSTANCE, PERSON)
    assert sent.text == "Olá, çã 👋\n\n2ª linha"


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_form_that_worked_is_the_first_that_the_next_send_tries(
    generation: Generation, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = generation
    await send(client)
    asked = len(evolution.requests)

    assert (await send(client)).kind == "sent"
    assert (await client.send_text("other", PERSON, "oi")).kind == "sent"

    assert len(evolution.requests) == asked + 2


async def test_an_upgrade_of_evolution_costs_one_refused_request(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    upgrades: list[Generation] = ["1", "2", "go", "1", "go", "2"]
    for generation in upgrades:
        evolution.generation = generation
        assert (await send(client)).kind == "sent"

    assert len(evolution.sent) == 6


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("429", "retry", "rate_limited"),
        ("502", "retry", "bad_gateway"),
        ("503", "retry", "unavailable"),
        ("500", "retry", "number_check"),
        ("500 of a proxy", "unknown", "server_error"),
        ("504", "unknown", "server_error"),
        ("drop", "unknown", "connection_lost"),
        ("closed", "retry", "connection_closed"),
        ("closed at the check", "retry", "connection_closed"),
        ("check timed out", "retry", "number_check"),
        ("never logged in", "retry", "not_logged_in"),
        ("overlimit", "retry", "rate_limited"),
        ("graph away", "retry", "graph_unreachable"),
        ("html", "unknown", "strange_answer"),
        ("garbage", "unknown", "strange_answer"),
        ("huge", "unknown", "strange_answer"),
        ("license", "dead", "license_required"),
        ("400", "dead", "refused"),
        ("401", "dead", "unauthorized"),
        ("403", "dead", "forbidden"),
        ("404", "dead", "no_such_instance"),
        ("absent", "dead", "not_on_whatsapp"),
        ("redirect", "dead", "redirect"),
    ],
)
async def test_an_answer_means_what_the_retry_law_says(
    fault: str,
    kind: str,
    reason: str,
    evolution: FakeEvolution,
    client: EvolutionClient,
) -> None:
    evolution.script(fault)

    outcome = await send(client)

    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert outcome.message_id is None
    assert len(evolution.sent) == FAULTS[fault].effect
    assert len(evolution.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (130429, "retry", "meta_130429_rate_limited"),
        (131056, "retry", "meta_131056_pair_rate_limited"),
        (131016, "retry", "meta_131016_service_unavailable"),
        (503, "retry", "meta_503"),
        (131047, "dead", "meta_131047_outside_24_hours"),
        (190, "dead", "meta_190_token_expired"),
        (139999, "dead", "meta_139999"),
    ],
)
async def test_what_meta_refuses_is_told_by_its_code(
    code: int,
    kind: str,
    reason: str,
    evolution: FakeEvolution,
    client: EvolutionClient,
) -> None:
    evolution.script(meta_refusal(code, "call 5511988887777 with EAAG-secret"))

    outcome = await send(client)

    assert (outcome.kind, outcome.reason) == (kind, reason)


async def test_what_meta_calls_transient_is_tried_again(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.script(meta_refusal(139999, is_transient=True))

    assert (await send(client)).kind == "retry"


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ("open", "dead", "group_not_found"),
        ("connecting", "retry", "connection_closed"),
        ("close", "retry", "connection_closed"),
    ],
)
async def test_a_groups_refusal_is_judged_by_the_connection(
    state: str,
    kind: str,
    reason: str,
    evolution: FakeEvolution,
    client: EvolutionClient,
) -> None:
    evolution.states[INSTANCE] = state
    if state == "open":
        evolution.script("closed group")

    outcome = await client.send_text(INSTANCE, "120363000000000001@g.us", "oi")

    assert (outcome.kind, outcome.reason) == (kind, reason)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "fault", ["drop after effect", "500 of a proxy", "timed out", "not stored"]
)
async def test_what_may_have_been_sent_is_never_told_to_be_sent_again(
    fault: str, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.script(fault)

    outcome = await send(client)

    assert outcome.kind == "unknown"
    assert len(evolution.sent) == 1


@pytest.mark.both_loops
@pytest.mark.parametrize("fault", ["hang", "hang after effect"])
async def test_a_time_out_after_the_request_is_unknown(
    fault: str, evolution: FakeEvolution, hasty: EvolutionClient
) -> None:
    evolution.script(fault)

    assert await send(hasty) == SendOutcome("unknown", reason="timeout")


@pytest.mark.both_loops
async def test_a_refused_connection_may_be_tried_again() -> None:
    client = EvolutionClient(f"http://127.0.0.1:{free_port()}", "k")

    assert await send(client) == SendOutcome("retry", reason="no_connection")
    await client.close()


@pytest.mark.both_loops
async def test_a_name_that_does_not_resolve_may_be_tried_again() -> None:
    client = EvolutionClient("http://evolution.invalid:8080", "k")

    assert (await send(client)).kind == "retry"
    await client.close()


@pytest.mark.both_loops
async def test_a_server_that_never_takes_the_connection_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # TLS towards a server that says nothing: no byte of the request goes out.
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        client = EvolutionClient(url, "k", seconds=0.5)
        assert await send(client) == SendOutcome("retry", reason="no_connection")
        await client.close()


async def test_a_server_that_comes_back_on_its_port_is_reached_again(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    assert (await send(client)).kind == "sent"
    await evolution.stop()
    assert (await send(client)).kind == "retry"
    await evolution.start()

    assert (await send(client)).kind == "sent"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("-3", 0.0), ("1e9", 3600.0), ("soon", 0.0)]
)
async def test_retry_after_is_told_in_seconds_within_an_hour(
    header: str, seconds: float, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.script(Fault(429, "slow", headers={"Retry-After": header}))

    assert (await send(client)).retry_after == seconds


async def test_a_body_that_is_refused_in_both_forms_ends_the_send(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.script("requires textMessage")

    outcome = await send(client)

    assert (outcome.kind, outcome.reason) == ("dead", "refused")
    assert len(evolution.requests) == 2


async def test_an_unknown_instance_is_told_as_that(evolution: FakeEvolution) -> None:
    evolution.only = {"loja"}
    client = EvolutionClient(evolution.url, evolution.api_key)

    outcome = await client.send_text("lojinha", PERSON, "oi")
    await client.close()

    assert (outcome.kind, outcome.reason) == ("dead", "no_such_instance")
    assert len(evolution.requests) == 1


async def test_a_url_that_is_not_evolutions_is_told_as_not_found(
    evolution: FakeEvolution,
) -> None:
    client = EvolutionClient(f"{evolution.url}/elsewhere/", evolution.api_key)

    outcome = await send(client)
    await client.close()

    assert (outcome.kind, outcome.reason) == ("dead", "not_found")
    assert len(evolution.requests) == 2


@pytest.mark.parametrize("name", ["loja 1", "a/b", "ação", "%2e%2e", "a?b#c", "..x"])
async def test_any_name_of_an_instance_stays_one_word_of_the_path(
    name: str, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    await client.send_text(name, PERSON, "oi")

    assert [path for _, path, _ in evolution.requests] == [f"/message/sendText/{name}"]


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_be_another_path_is_never_asked_for(
    name: str, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    outcome = await client.send_text(name, PERSON, "oi")

    assert (outcome.kind, outcome.reason) == ("dead", "bad_path")
    assert evolution.requests == []


async def test_a_cancelled_send_ends_at_once(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.script("hang")
    sending = asyncio.create_task(send(client))
    await until(lambda: evolution.requests)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_no_secret_and_no_text_is_logged(
    evolution: FakeEvolution, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = EvolutionClient(evolution.url, "sesame-key")
    outcome = await client.send_text("loja\nfake line", PERSON, "segredo")
    await client.close()

    assert outcome.reason == "unauthorized"
    for word in ("sesame", "segredo", "5511988887777", "\nfake"):
        assert word not in caplog.text


@pytest.mark.parametrize("key", ["chave ç", "a\nb"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_at_once(key: str) -> None:
    with pytest.raises(ConfigError):
        EvolutionClient("http://127.0.0.1", key)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_typing_is_shown_in_every_generation(
    generation: Generation, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = generation

    await client.send_typing(INSTANCE, PERSON, 0.01)

    assert [(name, jid) for name, jid, _ in evolution.typing] == [(INSTANCE, PERSON)]


async def test_typing_never_raises() -> None:
    client = EvolutionClient(f"http://127.0.0.1:{free_port()}", "k")

    await client.send_typing(INSTANCE, PERSON, 0.01)
    await client.send_typing("..", PERSON, float("nan"))
    await client.close()
