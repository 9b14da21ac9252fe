"""The long scenarios of WhatsApp, by name, as the campaign runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

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


SCENARIOS: dict[str, Callable[[PostgresServer, Path], Awaitable[Figures]]] = {
    scenario.__name__: scenario
    for scenario in (whatsapp_2_0, whatsapp_2_2, whatsapp_2_3)
}
