"""The long scenarios of WhatsApp, by name, as the campaign runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults import webhook_load
from tests.faults.whatsapp import Figures, answered_under_faults
from tests.faults.whatsapp_harm import Plan
from tests.postgres import PostgresServer

_LONG = Plan(
    messages=3000,
    chats=200,
    seconds=240.0,
    processes=3,
    kills=45,
    kills_of_all=5,
    restarts=4,
    absences=4,
    quiet_seconds=400.0,
)


async def whatsapp_2_0(postgres: PostgresServer, folder: Path) -> Figures:
    """3000 messages; a webhook that is refused once never comes again."""
    return await answered_under_faults(postgres, folder, _LONG._replace(law="2.0"))


async def whatsapp_2_2(postgres: PostgresServer, folder: Path) -> Figures:
    """3000 messages; ten tries in 270 s, here in 5.4 s."""
    return await answered_under_faults(postgres, folder, _LONG._replace(law="2.2"))


async def whatsapp_2_3(postgres: PostgresServer, folder: Path) -> Figures:
    """3000 messages; ten tries in 1215 s, here in 24 s."""
    return await answered_under_faults(postgres, folder, _LONG._replace(law="2.3"))


async def webhooks_and_a_slow_model(postgres: PostgresServer, folder: Path) -> Figures:
    """The model takes 60 s for each of 100 chats; 200 webhooks a second meanwhile."""
    return await webhook_load.slow_model(
        postgres, folder, chats=100, model_seconds=60.0, rate=200.0, load_seconds=40.0
    )


async def webhook_burst_64(postgres: PostgresServer, folder: Path) -> Figures:
    """10,000 messages of 500 chats by 64 connections, as fast as the client can."""
    return await webhook_load.burst(
        postgres, folder, webhooks=10_000, chats=500, connections=64
    )


async def webhook_burst_256(postgres: PostgresServer, folder: Path) -> Figures:
    """The same by 256 connections."""
    return await webhook_load.burst(
        postgres, folder, webhooks=10_000, chats=500, connections=256
    )


SCENARIOS: dict[str, Callable[[PostgresServer, Path], Awaitable[Figures]]] = {
    scenario.__name__: scenario
    for scenario in (
        webhooks_and_a_slow_model,
        webhook_burst_64,
        webhook_burst_256,
        whatsapp_2_0,
        whatsapp_2_2,
        whatsapp_2_3,
    )
}
