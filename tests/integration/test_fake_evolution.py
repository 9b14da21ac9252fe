"""The fake Evolution keeps the laws that the real one's source states."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution
from tests.fakes.evolution_webhooks import Law, waits_of
from viva_server.whatsapp.evolution.client import EvolutionClient


class Receiver:
    """Answers webhooks with the statuses that it is told, the last one for ever."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.got: list[tuple[str, str, bool]] = []

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.json()
        row = body["data"]
        from_me = bool(row.get("fromMe", row.get("key", {}).get("fromMe")))
        self.got.append((request.path, body["event"], from_me))
        more = len(self.statuses) > 1
        return web.Response(status=self.statuses.pop(0) if more else self.statuses[0])


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def address(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("law", "status", "attempts"),
    [
        ("2.0", 503, 1),
        ("2.2", 401, 10),
        ("2.3", 401, 1),
        ("2.3", 404, 1),
        ("2.3", 413, 10),
        ("2.3", 503, 10),
        ("go", 401, 5),
    ],
)
async def test_a_refused_webhook_is_repeated_by_the_law_of_its_version(
    law: Law, status: int, attempts: int, receiver: Receiver, address: str
) -> None:
    receiver.statuses = [status]
    async with FakeEvolution(law=law, scale=0.00001) as evolution:
        evolution.add_webhook(address)
        evolution.receive("oi")
        await evolution.settled()

    assert [delivered.statuses for delivered in evolution.deliveries] == [
        [status] * attempts
    ]


def test_the_waits_of_2_3_double_up_to_five_minutes() -> None:
    assert waits_of("2.3") == [5, 10, 20, 40, 80, 160, 300, 300, 300]


async def test_a_success_ends_the_repeating(receiver: Receiver, address: str) -> None:
    receiver.statuses = [503, 503, 200]
    async with FakeEvolution(scale=0.00001) as evolution:
        evolution.add_webhook(address)
        evolution.receive("oi")
        await evolution.settled()

    (delivered,) = evolution.deliveries
    assert delivered.is_accepted
    assert delivered.statuses == [503, 503, 200]


async def test_a_send_comes_back_as_send_message_and_a_receipt_follows(
    receiver: Receiver, address: str
) -> None:
    async with FakeEvolution() as evolution:
        evolution.add_webhook(address, by_events=True)
        client = EvolutionClient(evolution.url, evolution.api_key)
        await client.send_text(INSTANCE, PERSON, "oi")
        await client.close()
        await evolution.settled()
        evolution.acknowledge(evolution.sent[0], "READ")
        evolution.receive("eu mesmo", from_me=True)
        await evolution.settled()

    assert sorted(receiver.got) == [
        ("/hook/messages-update", "messages.update", True),
        ("/hook/messages-upsert", "messages.upsert", True),
        ("/hook/send-message", "send.message", True),
    ]


async def test_the_instances_webhook_comes_before_the_global_one(
    receiver: Receiver, address: str
) -> None:
    async with FakeEvolution() as evolution:
        evolution.add_webhook(f"{address}/global")
        evolution.add_webhook(f"{address}/own", INSTANCE)
        evolution.add_webhook(f"{address}/other", "other")
        evolution.add_webhook(f"{address}/calls", events=["CALL"])
        evolution.receive("oi")
        await evolution.settled()

    assert [path for path, _, _ in receiver.got] == ["/hook/own", "/hook/global"]


async def test_a_restart_of_evolution_loses_what_it_would_repeat(
    receiver: Receiver, address: str
) -> None:
    receiver.statuses = [503]
    async with FakeEvolution(scale=10) as evolution:
        evolution.add_webhook(address)
        evolution.receive("oi")
        await evolution.webhooks.forget()
        await evolution.settled()

    assert not any(delivered.is_done for delivered in evolution.deliveries)
