"""Clients that leave, stall and come all at once; the long versions: `campaign`."""

from __future__ import annotations

import pytest

from tests.fakes.model import FakeModel
from tests.faults import leaving
from tests.faults.fleet import Fleet


@pytest.mark.parametrize("grace", [0.0, 30.0])
async def test_what_a_leaver_saw_is_in_the_snapshot_within_300_ms(
    fleet: Fleet, model: FakeModel, grace: float
) -> None:
    figures = await leaving.clients_leave(fleet, model, clients=40, grace=grace)
    assert figures["snapshot_max_s"] < leaving.SNAPSHOT_SECONDS


async def test_after_the_grace_the_model_is_left_within_a_second(
    fleet: Fleet, model: FakeModel
) -> None:
    await leaving.grace_runs_out(fleet, model, clients=20, grace=1.0)


async def test_one_key_is_one_model_call_however_many_come_at_once(
    fleet: Fleet, model: FakeModel
) -> None:
    await leaving.one_key_at_once(fleet, model, clients=50)


async def test_a_reader_that_does_not_read_is_cut_and_costs_only_itself(
    fleet: Fleet, model: FakeModel
) -> None:
    armed = ("mutant:short_times",)
    await leaving.readers_stall(fleet, model, stalled=20, deadline=3.0, armed=armed)


async def test_a_reader_that_is_slow_gets_all_of_a_long_reply(
    fleet: Fleet, model: FakeModel
) -> None:
    figures = await leaving.reader_is_slow(fleet, model, armed=("mutant:short_times",))
    assert figures["read_in_s"] > 3.0, "not longer than the write deadline"


async def test_a_message_to_another_process_supersedes_only_what_nobody_reads(
    fleet: Fleet, model: FakeModel
) -> None:
    await leaving.superseded_across(fleet, model)


async def test_stop_by_another_process_is_answered_after_the_commit(
    fleet: Fleet, model: FakeModel
) -> None:
    await leaving.stopped_from_elsewhere(fleet, model)


async def test_a_reader_at_another_process_keeps_the_reply_alive(
    fleet: Fleet, model: FakeModel
) -> None:
    await leaving.read_from_afar(fleet, model)
