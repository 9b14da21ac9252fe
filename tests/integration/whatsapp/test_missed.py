"""A whole server makes up for webhooks that never came."""

from __future__ import annotations

import asyncio

from yarl import URL

from tests.chat_host import settings
from tests.dictation import saying
from tests.fakes.evolution import INSTANCE, FakeEvolution
from tests.integration.whatsapp.lab import lab
from viva_server.services import Services


async def test_what_was_missed_is_answered_once_when_the_instance_connects(
    database_url: str,
) -> None:
    async with lab(database_url) as site:
        site.receive("oi")
        await site.sent(1)
        site.receive("perdida", delivers=False)
        connected = {"instance": INSTANCE, "state": "open", "statusReason": 200}
        site.upsert(connected, "connection.update")
        await site.sent(2)
        site.upsert({**connected, "statusReason": 201}, "connection.update")
        await site.applied()
        assert site.answers.questions == ["oi", "perdida"]
        assert site.texts == ["Resposta 1", "Resposta 2"]


async def test_the_catch_up_ends_before_a_host_closes_its_resources(
    database_url: str,
) -> None:
    async with FakeEvolution() as evolution:
        config = settings(
            database_url,
            webhook_open=True,
            evolution_url=URL(evolution.url),
            evolution_api_key=evolution.api_key,
        )
        services = Services(config, saying("oi"))
        async with services.running():
            assert "viva catch-up" in running_tasks()
            await services.drain()
            assert "viva catch-up" not in running_tasks()


def running_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}
