"""A runtime that is stopped leaves nothing running, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.rooms import Process
from tests.postgres import run_sql


def running() -> set[str]:
    names = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names if name.startswith("viva ")}


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_cancelled_stop_ends_everything_and_is_cancelled(
    process: Process, database_url: str, turns: int
) -> None:
    assert {"viva heartbeat", "viva journal", "viva recovery"} <= running()
    stopping = asyncio.create_task(process.runtime.stop())
    for _ in range(turns):
        await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    # The reading of other processes' replies ends with `drain`.
    assert running() <= {"viva follow"}
    assert run_sql(database_url, "SELECT id FROM viva.processes") == []
