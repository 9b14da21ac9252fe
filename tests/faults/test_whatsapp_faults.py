"""WhatsApp's answers under kills, an outage and failures; long: `campaign`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.whatsapp import answered_under_faults
from tests.faults.whatsapp_harm import Plan
from tests.faults.whatsapp_site import Shares
from tests.postgres import PostgresServer


@pytest.mark.durable
async def test_every_message_is_answered_once_and_in_order_whatever_fails(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    plan = Plan(
        messages=80,
        chats=10,
        seconds=12.0,
        kills=3,
        kills_of_all=1,
        restarts=1,
        absences=1,
        law="2.0",
        shares=Shares(retried=0.1, sent=0.1, unsent=0.0),
        armed=("mutant:short_catch_up", "mutant:short_settling"),
        quiet_seconds=60.0,
    )
    await answered_under_faults(own_postgres, tmp_path, plan)


async def test_a_server_that_sends_blindly_again_is_found_out(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    plan = Plan(
        messages=40,
        chats=10,
        seconds=3.0,
        processes=1,
        model_share=0.0,
        shares=Shares(retried=0.0, sent=0.7, unsent=0.0),
        armed=("mutant:send_blindly",),
        quiet_seconds=15.0,
    )
    with pytest.raises(AssertionError, match="doubled: msg"):
        await answered_under_faults(postgres, tmp_path, plan)
