"""The doctor asks Evolution, and goes the way that a webhook takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from tests.fakes.evolution import FakeEvolution
from tests.programs import free_port
from viva_server.config import Config
from viva_server.store.checks import Check
from viva_server.whatsapp.evolution.doctor import check_evolution

SECRET = "a-webhook-secret"


@pytest.fixture
async def evolution() -> AsyncIterator[FakeEvolution]:
    async with FakeEvolution(only=["loja"]) as running:
        yield running


@pytest.fixture
async def door() -> AsyncIterator[str]:
    """The URL of what answers a GET as viva_server's webhook does."""

    async def describe(request: web.Request) -> web.Response:
        assert not request.query_string
        return web.json_response({"status": "webhook ativo", "service": "evolution"})

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/api/v1/webhook/evolution")

    app = web.Application()
    app.router.add_get("/api/v1/webhook/evolution", describe)
    app.router.add_get("/moved/webhook/evolution", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/webhook/evolution"
    await runner.cleanup()


def config_for(evolution: FakeEvolution, key: str | None = None) -> Config:
    return Config(
        evolution_url=URL(evolution.url),
        evolution_api_key=key or evolution.api_key,
        webhook_secret=(SECRET,),
    )


def settings(url: str) -> dict[str, object]:
    events = "MESSAGES_UPSERT SEND_MESSAGE MESSAGES_UPDATE CONNECTION_UPDATE"
    headers = {"Authorization": f"Bearer {SECRET}"}
    return {"url": url, "enabled": True, "events": events.split(), "headers": headers}


def failing(checks: list[Check]) -> list[str]:
    return [check.detail for check in checks if not check.ok]


async def test_all_is_well(evolution: FakeEvolution, door: str) -> None:
    evolution.settings["loja"] = settings(door)

    checks = await check_evolution(config_for(evolution))

    assert [(check.name, check.ok, check.warn) for check in checks] == [
        ("evolution", True, False),
        ("webhook loja", True, False),
    ]


async def test_a_webhook_that_nobody_answers_is_found_with_its_repair(
    evolution: FakeEvolution,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/v1/webhook/evolution"
    evolution.settings["loja"] = settings(url)

    checks = await check_evolution(config_for(evolution))

    assert failing(checks) == [f"127.0.0.1:{port} cannot be reached from here"]
    assert checks[-1].name == "repair loja"
    assert checks[-1].detail.startswith('POST /webhook/set/loja {"webhook":{')
    assert str(port) not in checks[-1].detail
    assert SECRET not in repr(checks)


@pytest.mark.parametrize("state", ["connecting", "close"])
async def test_an_instance_that_is_not_open_is_a_fault(
    state: str, evolution: FakeEvolution, door: str
) -> None:
    evolution.settings["loja"] = settings(door)
    evolution.states["loja"] = state

    (detail,) = failing(await check_evolution(config_for(evolution)))

    assert detail.startswith(f"is {state}, not open")


async def test_another_server_at_the_address_is_found(
    evolution: FakeEvolution,
) -> None:
    evolution.settings["loja"] = settings(f"{evolution.url}/webhook/evolution")

    (detail,) = failing(await check_evolution(config_for(evolution)))

    assert "no viva_server is there" in detail
    assert ("GET", "/webhook/evolution", None) in evolution.requests


async def test_a_redirect_is_a_fault_since_it_loses_the_body(
    evolution: FakeEvolution, door: str
) -> None:
    evolution.settings["loja"] = settings(door.replace("/api/v1", "/moved"))

    (detail,) = failing(await check_evolution(config_for(evolution)))

    assert "answers 302" in detail


async def test_an_instance_of_other_people_does_no_harm(
    evolution: FakeEvolution, door: str
) -> None:
    evolution.only = {"loja", "other", "none"}
    evolution.settings["loja"] = settings(door)
    evolution.settings["other"] = settings("https://n8n.example/hook")

    checks = await check_evolution(config_for(evolution))

    assert failing(checks) == []
    assert [check.name for check in checks if check.warn] == [
        "webhook none",
        "webhook other",
    ]


async def test_no_webhook_at_all_is_found_with_the_request_that_makes_one(
    evolution: FakeEvolution,
) -> None:
    (detail,) = failing(await check_evolution(config_for(evolution)))

    assert "no instance has a webhook" in detail
    assert "POST /webhook/set/loja" in detail


async def test_evolution_go_is_known_and_is_no_fault(evolution: FakeEvolution) -> None:
    evolution.generation = "go"

    (check,) = await check_evolution(config_for(evolution))

    assert check.ok
    assert "evolution-go" in check.detail


async def test_each_reason_to_be_refused_is_told(evolution: FakeEvolution) -> None:
    wrong_key = await check_evolution(config_for(evolution, "wrong"))
    config = Config(
        evolution_url=URL(f"http://127.0.0.1:{free_port()}"), evolution_api_key="k"
    )
    nobody = await check_evolution(config)
    config = Config(evolution_url=URL(f"{evolution.url}/x"), evolution_api_key="k")
    evolution.api_key = "k"
    elsewhere = await check_evolution(config)
    evolution.only = set()
    empty = await check_evolution(config_for(evolution))

    assert failing(wrong_key) == ["refuses VIVA_EVOLUTION_API_KEY"]
    assert failing(nobody) == ["cannot be reached at VIVA_EVOLUTION_URL"]
    assert failing(elsewhere) == ["is not what VIVA_EVOLUTION_URL leads to"]
    assert failing(empty) == ["has no instance that the key may see"]


async def test_without_evolution_it_says_that_nothing_is_answered() -> None:
    (check,) = await check_evolution(Config())

    assert check.ok
    assert check.warn
