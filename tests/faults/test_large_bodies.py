"""Webhooks that are heavy to read hold up nobody; long versions: `campaign`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from tests.fakes.model import FakeModel
from tests.faults import large_bodies
from tests.faults.fleet import Fleet
from tests.faults.heavy import history
from tests.faults.large_bodies import MIB, children_of, post
from tests.waiting import until


async def test_heavy_bodies_hold_up_neither_webhooks_nor_streams(
    fleet: Fleet, model: FakeModel
) -> None:
    """A thread in the place of the process holds the loop for 0.5 to 2 s here."""
    figures = await large_bodies.others_go_on(
        fleet,
        model,
        mebibytes=3,
        media_mebibytes=5,
        # Generous, for a busy machine; the campaign gives the real figures.
        block_seconds=1.0,
    )
    assert figures["history"]["said"] == ["messages.set"]
    assert figures["media_20"]["said"] == ["messages.upsert"]
    assert figures["largest_stored_kib"] < 600


@pytest.mark.parametrize("kills_server", [True, False])
async def test_no_process_outlives_its_server(fleet: Fleet, kills_server: bool) -> None:
    (server,) = await fleet.start(1, webhook_open="1")
    posting = asyncio.create_task(
        asyncio.to_thread(post, server.port, history(30 * MIB))
    )
    await until(lambda: children_of(server.pid))
    children = children_of(server.pid)
    await asyncio.sleep(0.5)
    if kills_server:
        await server.kill()
    else:
        server.signal(15)
        assert await server.exit_code() == 0
    await until(lambda: not any(map(_is_alive, children)))
    with contextlib.suppress(OSError):
        status, _, _ = await posting
        assert status == 503


@pytest.mark.parametrize(("size", "stays"), [(MIB, True), (10 * MIB, False)])
async def test_a_process_that_is_killed_costs_one_delivery_and_comes_again(
    fleet: Fleet, size: int, stays: bool
) -> None:
    (server,) = await fleet.start(1, webhook_open="1")
    body = history(size)
    posting = asyncio.create_task(asyncio.to_thread(post, server.port, body))
    await until(lambda: children_of(server.pid))
    for child in children_of(server.pid):
        os.kill(child, 9)
    assert (await posting)[0] == 503
    assert (await asyncio.to_thread(post, server.port, body))[0] == 200
    await until(lambda: bool(children_of(server.pid)) == stays)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
