"""The database crashes and comes back under streams; long versions: `campaign`."""

from __future__ import annotations

import pytest

from tests.fakes.model import FakeModel
from tests.faults import outage
from tests.faults.fleet import Fleet
from tests.postgres import PostgresServer

SHORT = ("mutant:short_times",)


@pytest.mark.durable
async def test_a_crash_of_the_database_costs_no_stream_and_no_process(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    await outage.crashes(
        own_fleet, model, own_postgres, streams=[40, 40], away_seconds=3.0
    )


async def test_streams_pause_while_the_database_is_away_and_go_on(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    await outage.crashes(
        own_fleet,
        model,
        own_postgres,
        streams=[20],
        away_seconds=1.0,
        is_crash=False,
        armed=SHORT,
        tokens=60,
    )


async def test_after_a_long_outage_readers_are_cut_and_the_text_is_stored(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    figures = await outage.stays_away(
        own_fleet, model, own_postgres, away_seconds=7.0, cut_after=4.0, armed=SHORT
    )
    assert figures["keep_alives_seen"] > 0


async def test_new_messages_get_503_while_the_database_is_away(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    await outage.answers_while_away(own_fleet, model, own_postgres)


async def test_sigterm_without_a_database_ends_in_time_and_says_nothing_false(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    figures = await outage.told_to_stop_while_away(
        own_fleet, model, own_postgres, readers=20
    )
    assert figures["exit_code"] == 0


async def test_a_process_that_loses_its_connections_is_not_called_dead(
    fleet: Fleet, model: FakeModel
) -> None:
    await outage.loses_connections(fleet, model, times=3)
