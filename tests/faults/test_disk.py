"""The database's disk is slow or fails, under streams."""

from __future__ import annotations

import pytest

from tests.fakes.model import FakeModel
from tests.faults import disk
from tests.faults.fleet import Fleet
from tests.postgres import PostgresServer

pytestmark = pytest.mark.durable


async def test_a_flush_that_fails_costs_no_stream(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    figures = await disk.flush_fails_once(own_fleet, model, own_postgres, readers=20)
    assert figures["whole"] == 20
    log = (own_postgres.folder / "postgres.log").read_text()
    assert "PANIC" in log, "the flush did not fail"


async def test_slow_flushes_hold_streams_up_and_end_none(
    own_fleet: Fleet, own_postgres: PostgresServer, model: FakeModel
) -> None:
    figures = await disk.flushes_are_slow(own_fleet, model, own_postgres, readers=20)
    assert figures["whole"] == 20
