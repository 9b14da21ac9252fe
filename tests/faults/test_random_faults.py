"""A cut for all and a kill cost what they may, and no more; long: `campaign`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.injection import FAULTS
from tests.faults.random_faults import Plan, random_faults
from tests.faults.site import FaultyPostgres
from tests.postgres import PostgresServer, copy_cluster, data_folder


@pytest.fixture
async def faulty_postgres(cluster: Path) -> AsyncIterator[PostgresServer]:
    with data_folder() as folder:
        copy_cluster(cluster, folder)
        postgres = PostgresServer(folder, kind=FaultyPostgres)
        await postgres.start()
        try:
            yield postgres
        finally:
            await postgres.stop()


async def test_a_cut_for_all_and_a_kill_cost_no_more_than_they_may(
    faulty_postgres: PostgresServer, tmp_path: Path
) -> None:
    random.seed(16)
    seconds = {"dropped, all": 3.0, "killed": 0.0}
    faults = [
        replace(fault, seconds=(seconds[fault.name],) * 2)
        for fault in FAULTS
        if fault.name in seconds
    ]
    plan = Plan(
        seconds=15.0,
        slack=30.0,  # what takes time is the campaign's; what is lost, everybody's
        faults=faults,
        pause=(6.0, 6.0),
        persons=10,
        webhooks_per_second=2.0,
    )
    figures = await random_faults(faulty_postgres, tmp_path, plan)
    assert figures["kills"] == 1
