"""Heavy bodies in real processes: the same delivery, bounded, and gone afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.faults.heavy import bottomless, history, media, wide
from tests.faults.large_bodies import MIB, heavy_processes_of
from tests.waiting import until
from viva_server.errors import OverloadedError
from viva_server.whatsapp.events.json_values import NotJsonObjectError
from viva_server.whatsapp.ingress.delivery import (
    Delivery,
    WebhookRequest,
    WrongSecretError,
    read_delivery,
)
from viva_server.whatsapp.ingress.heavy_bodies import (
    HeavyBodies,
    HeavyBodyError,
    TooCostlyError,
)

SECRET = "a-secret-of-the-hook"
POST = WebhookRequest(
    tail="/x", query="", headers={"User-Agent": "axios/1"}, trusted=True
)
ASKING = replace(POST, asked=(SECRET,))


def processes() -> list[int]:
    """Give the running processes of all heavy_bodies of this test."""
    return heavy_processes_of(os.getpid())


@pytest.fixture
async def heavy_bodies() -> AsyncIterator[HeavyBodies]:
    heavy_bodies = HeavyBodies()
    yield heavy_bodies
    await heavy_bodies.close()


async def test_a_delivery_is_the_same_as_without_a_process(
    heavy_bodies: HeavyBodies,
) -> None:
    for raw in (media(MIB), history(MIB), bottomless(2000), b'{"event":"call"}'):
        there = await heavy_bodies.read(raw, POST)
        here = read_delivery(raw, POST)
        assert replace(there, id=here.id) == here


async def test_what_is_refused_is_refused_there_too(heavy_bodies: HeavyBodies) -> None:
    with pytest.raises(NotJsonObjectError):
        await heavy_bodies.read(b"[]", POST)
    for raw in (b"{", b'{"apikey":"another"}'):
        with pytest.raises(WrongSecretError):
            await heavy_bodies.read(raw, ASKING)
    right = b'{"apikey":"a-secret-of-the-hook","event":"call"}'
    assert (await heavy_bodies.read(right, ASKING)).form["event"] == "call"


async def test_what_needs_too_much_memory_is_too_costly(
    heavy_bodies: HeavyBodies,
) -> None:
    raw = wide(20 * MIB)
    with pytest.raises(TooCostlyError):
        await heavy_bodies.read(raw, POST)
    with pytest.raises(WrongSecretError):
        await heavy_bodies.read(raw, ASKING)


async def halted(
    heavy_bodies: HeavyBodies, raw: bytes, post: WebhookRequest = POST
) -> asyncio.Task[Delivery]:
    """Begin with a body, in a process that does not go on by itself."""
    unpacking = asyncio.create_task(heavy_bodies.read(raw, post))
    await until(processes)
    os.kill(processes()[0], signal.SIGSTOP)
    return unpacking


async def test_a_cancelled_caller_ends_its_process_and_the_next_goes_on(
    heavy_bodies: HeavyBodies, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = await halted(heavy_bodies, history(20 * MIB))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await until(lambda: not processes())
    await heavy_bodies.read(history(9 * MIB), POST)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_caller_that_leaves_before_its_process_begins_begins_none(
    heavy_bodies: HeavyBodies,
) -> None:
    threads, release = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(threads)
    threads.submit(release.wait)
    unpacking = asyncio.create_task(heavy_bodies.read(b"{}", POST))
    await until(threads._work_queue.qsize)
    left = heavy_bodies._small._process
    unpacking.cancel()
    await asyncio.wait([unpacking])
    begun = asyncio.create_task(heavy_bodies.read(b"{}", POST))
    release.set()
    assert (await begun).form["event"] == "x"
    assert left is not None
    assert left._child is None
    assert len(processes()) == 1


async def test_who_waits_too_long_for_a_turn_may_come_again() -> None:
    heavy_bodies = HeavyBodies(wait_seconds=0.05)
    first = asyncio.create_task(heavy_bodies.read(history(20 * MIB), POST))
    await until(processes)
    with pytest.raises(OverloadedError):
        await heavy_bodies.read(history(9 * MIB), POST)
    # A small one does not wait for the large.
    await heavy_bodies.read(media(MIB), POST)
    await heavy_bodies.close()
    with pytest.raises(HeavyBodyError):
        await first
    async with asyncio.timeout(15):
        with pytest.raises(OverloadedError):
            await heavy_bodies.read(b"{}", POST)
        with pytest.raises(OverloadedError):
            await heavy_bodies.read(history(9 * MIB), POST)
        await heavy_bodies.close()
    assert not processes()


async def test_a_body_that_uses_up_its_time_is_too_costly(
    heavy_bodies: HeavyBodies,
) -> None:
    # As the system does at its limit of time.
    for post, error in ((POST, TooCostlyError), (ASKING, WrongSecretError)):
        unpacking = await halted(heavy_bodies, history(MIB), post)
        os.kill(processes()[0], signal.SIGXCPU)
        os.kill(processes()[0], signal.SIGCONT)
        with pytest.raises(error):
            await unpacking


async def test_a_body_that_takes_too_long_ends_its_process() -> None:
    heavy_bodies = HeavyBodies(seconds=0.3)
    unpacking = await halted(heavy_bodies, history(30 * MIB))
    with pytest.raises(HeavyBodyError):
        await unpacking
    await until(lambda: not processes())
    await heavy_bodies.close()


async def test_a_close_ends_a_process_that_works_and_one_that_does_not() -> None:
    heavy_bodies = HeavyBodies()
    await heavy_bodies.read(b"{}", POST)
    small = processes()
    unpacking = asyncio.create_task(heavy_bodies.read(history(20 * MIB), POST))
    await until(lambda: len(processes()) == 2)
    for pid in {*processes()} - {*small}:
        os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(30):
        await heavy_bodies.close()
    assert not processes()
    with pytest.raises(HeavyBodyError):
        await unpacking


async def test_the_process_of_a_large_body_ends_with_it(
    heavy_bodies: HeavyBodies,
) -> None:
    await heavy_bodies.read(media(9 * MIB), POST)
    assert not processes()


async def test_a_process_that_works_is_not_idle() -> None:
    heavy_bodies = HeavyBodies(idle_seconds=0.3)
    await heavy_bodies.read(b"{}", POST)
    unpacking = await halted(heavy_bodies, history(MIB))
    (pid,) = processes()
    await asyncio.sleep(0.6)
    os.kill(pid, signal.SIGCONT)
    assert (await unpacking).form["event"] == "messages.set"
    await heavy_bodies.close()


async def test_an_idle_process_ends() -> None:
    heavy_bodies = HeavyBodies(idle_seconds=0.2)
    await heavy_bodies.read(b'{"event":"call"}', POST)
    assert processes()
    await until(lambda: not processes())
    await heavy_bodies.read(b'{"event":"call"}', POST)
    await heavy_bodies.close()
