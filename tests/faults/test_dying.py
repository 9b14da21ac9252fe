"""Processes that are killed, frozen and stopped; the long versions: `campaign`."""

from __future__ import annotations

import pytest

from tests.fakes.model import FakeModel
from tests.faults import dying
from tests.faults.cluster import Cluster


async def test_kill_9_loses_nothing_seen_and_another_process_closes_in_2_seconds(
    cluster: Cluster, model: FakeModel
) -> None:
    figures = await dying.killed_at_random(cluster, model, kills=4)
    assert figures["take_over_max_s"] < dying.TAKEN_OVER_SECONDS


async def test_kill_9_before_in_and_after_each_commit_loses_nothing_seen(
    cluster: Cluster, model: FakeModel
) -> None:
    points = (
        "start_reply.after",
        "accepted.written",
        "append_chunks.during",
        "append_chunks.after",
        "close_replies.during",
        "close_replies.after",
    )
    figures = await dying.killed_at(cluster, model, points)
    assert figures["take_over_max_s"] < dying.TAKEN_OVER_SECONDS


@pytest.mark.parametrize("moment", ["during", "after"])
async def test_who_is_killed_while_it_buries_another_is_buried_as_well(
    cluster: Cluster, model: FakeModel, moment: str
) -> None:
    await dying.killed_while_burying(cluster, model, moment)


async def test_a_process_that_wakes_after_its_death_writes_nothing_and_starts_anew(
    cluster: Cluster, model: FakeModel
) -> None:
    armed = ["mutant:short_times"]
    await dying.frozen(cluster, model, seconds=6.0, armed=armed)


async def test_sigterm_ends_every_stream_with_done_and_exits_0(
    cluster: Cluster, model: FakeModel
) -> None:
    await dying.told_to_stop(cluster, model, readers=100)


async def test_sigterm_does_not_wait_for_readers_that_do_not_read(
    cluster: Cluster, model: FakeModel
) -> None:
    await dying.told_to_stop(cluster, model, readers=10, stalled=3)


async def test_a_second_sigterm_ends_a_long_drain(
    cluster: Cluster, model: FakeModel
) -> None:
    await dying.told_twice_to_stop(cluster, model)
