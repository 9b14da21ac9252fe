"""Processes that are killed, frozen and stopped; the long versions: `campaign`."""

from __future__ import annotations

from tests.fakes.model import FakeModel
from tests.faults import dying
from tests.faults.fleet import Fleet


async def test_kill_9_loses_nothing_seen_and_another_process_closes_in_2_seconds(
    fleet: Fleet, model: FakeModel
) -> None:
    figures = await dying.killed_at_random(fleet, model, kills=3)
    assert figures["take_over_max_s"] < dying.TAKEN_OVER_SECONDS


async def test_kill_9_before_in_and_after_each_commit_loses_nothing_seen(
    fleet: Fleet, model: FakeModel
) -> None:
    points = (
        "start_reply.after",
        "accepted.written",
        "append_chunks.during",
        "append_chunks.after",
        "close_replies.during",
        "close_replies.after",
    )
    figures = await dying.killed_at(fleet, model, points)
    assert figures["take_over_max_s"] < dying.TAKEN_OVER_SECONDS


async def test_kill_9_while_a_reply_is_replaced_loses_neither(
    fleet: Fleet, model: FakeModel
) -> None:
    points = (
        "start_reply.during",
        "start_reply.after",
        "append_chunks.after",
        "close_replies.during",
    )
    await dying.killed_while_replacing(fleet, model, points)


async def test_who_is_killed_while_it_buries_another_is_buried_as_well(
    fleet: Fleet, model: FakeModel
) -> None:
    await dying.killed_while_closing(fleet, model, "during")


async def test_a_process_that_wakes_after_its_death_writes_nothing_and_starts_anew(
    fleet: Fleet, model: FakeModel
) -> None:
    armed = ["mutant:short_times"]
    await dying.frozen(fleet, model, seconds=6.0, armed=armed)


async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(
    fleet: Fleet, model: FakeModel
) -> None:
    places = ("start_reply", "append_chunks", "close_replies")
    specs = [
        f"{place}.{when}:raise@2" for place in places for when in ("before", "after")
    ]
    await dying.goes_on_after(fleet, model, specs)


async def test_a_process_that_stalls_for_3_seconds_is_not_called_dead(
    fleet: Fleet, model: FakeModel
) -> None:
    await dying.goes_on_after(fleet, model, ["append_chunks.before:stall@5"])


async def test_sigterm_ends_every_stream_with_done_and_exits_0(
    fleet: Fleet, model: FakeModel
) -> None:
    await dying.told_to_stop(fleet, model, readers=100)


async def test_sigterm_does_not_wait_for_readers_that_do_not_read(
    fleet: Fleet, model: FakeModel
) -> None:
    await dying.told_to_stop(fleet, model, readers=10, stalled=3)


async def test_a_second_sigterm_ends_a_long_drain(
    fleet: Fleet, model: FakeModel
) -> None:
    await dying.told_twice_to_stop(fleet, model)
