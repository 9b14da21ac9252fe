"""The way to the database is cut; long versions: `campaign`."""

from __future__ import annotations

import pytest

from tests.faults import cuts
from tests.faults.proxy import Mode
from tests.postgres import data_folder


@pytest.mark.parametrize("mode", ["refuse", "drop"])
async def test_what_cuts_off_all_makes_nobody_dead(
    database_url: str, mode: Mode
) -> None:
    await cuts.all_are_cut(database_url, mode, 3.0)


@pytest.mark.parametrize(("mode", "seconds"), [("refuse", 1.0), ("up", 7.0)])
async def test_who_is_cut_off_alone_for_a_moment_lives(
    database_url: str, mode: Mode, seconds: float
) -> None:
    await cuts.one_is_cut_for_a_moment(database_url, mode, seconds)


async def test_who_was_declared_dead_is_itself_again_unasked(
    database_url: str,
) -> None:
    await cuts.one_dies_in_a_cut(database_url)


async def test_a_pooler_that_is_killed_and_comes_back_makes_nobody_dead(
    database_url: str,
) -> None:
    with data_folder() as folder:
        await cuts.pooler_is_killed(database_url, folder, 1.0)


async def test_behind_a_pooler_in_transaction_mode_a_killed_process_is_found(
    database_url: str,
) -> None:
    with data_folder() as folder:
        await cuts.killed_behind_a_pooler(database_url, folder)


async def test_a_clock_that_jumps_makes_nobody_dead(database_url: str) -> None:
    await cuts.clock_jumps(database_url)
