"""A task is ended and waited for, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from viva_server.store.driver.tasks import Tasks, end_task


class Work:
    """A task that needs some turns of the loop to end once it is cancelled."""

    def __init__(self) -> None:
        self.has_ended = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.has_ended = True


async def begun() -> Work:
    work = Work()
    await asyncio.sleep(0)
    return work


async def test_a_task_has_ended_when_end_task_returns() -> None:
    work = await begun()
    await end_task(work.task)
    assert work.has_ended


async def test_a_task_that_ends_in_time_is_not_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(0.01))
    await end_task(task, within_seconds=30)
    assert not task.cancelled()


@pytest.mark.parametrize("seconds", [0.0, 60.0])
async def test_a_cancelled_caller_stays_cancelled_and_the_task_has_ended(
    seconds: float,
) -> None:
    work = await begun()
    ending = asyncio.create_task(end_task(work.task, seconds))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert work.has_ended


async def test_a_caller_that_is_cancelled_while_the_task_ends_stays_cancelled() -> None:
    work = await begun()
    ending = asyncio.create_task(end_task(work.task))
    while not work.task.cancelling():
        await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert work.has_ended


async def test_each_of_two_cancellations_leaves_the_task_ended() -> None:
    work = await begun()
    ending = asyncio.create_task(end_task(work.task, 60))
    for _ in range(2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert work.has_ended


async def test_the_failure_of_a_task_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("why")

    task = asyncio.create_task(fail())
    with pytest.raises(ValueError, match="why"):
        await end_task(task, 5)


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_a_failure_that_nobody_waits_for_is_told_unless_all_is_stopping(
    caplog: pytest.LogCaptureFixture, *, is_stopping: bool
) -> None:
    async def fail() -> None:
        await go_on.wait()
        raise ValueError("why")

    tasks, go_on = Tasks(), asyncio.Event()
    caller = asyncio.create_task(tasks.shield(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    if is_stopping:
        tasks.expect_end()
    go_on.set()
    await tasks.end_all(60)
    await asyncio.sleep(0)
    del caller
    gc.collect()  # asyncio tells then of a failure that nobody has looked at
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    failure = "a statement failed after its caller had left: why"
    assert told == ([] if is_stopping else [failure])
