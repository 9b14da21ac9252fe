"""A whole server makes up for webhooks that never came."""

from __future__ import annotations

from tests.fakes.evolution import INSTANCE
from tests.integration.whatsapp.lab import lab


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
