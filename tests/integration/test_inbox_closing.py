"""A stop of the inbox stores what it can, and tells of all the rest."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.gates import Gate, edit, event, message, rows
from tests.waiting import until
from viva_server.errors import StoreUnavailableError
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.ingress.inbox import DeferredError, Inbox


async def test_a_stop_stores_what_is_queued(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    adding = [asyncio.create_task(inbox.add(message(n))) for n in range(5)]
    await until(lambda: gate.batches)
    closing = asyncio.create_task(inbox.close())
    await asyncio.sleep(0)
    gate.opened.set()
    await closing
    assert await asyncio.gather(*adding) == [True] * 5
    assert len(rows(database_url)) == 5
    with pytest.raises(StoreUnavailableError):
        await inbox.add(message(9))


async def test_a_stop_without_the_database_leaves_nobody_waiting(
    inbox: Inbox, gate: Gate
) -> None:
    gate.opened.clear()
    adding = [asyncio.create_task(inbox.add(message(n))) for n in range(5)]
    await until(lambda: gate.batches)
    await inbox.close(within_seconds=0.05)
    done, pending = await asyncio.wait(adding, timeout=5)
    assert not pending
    assert all(isinstance(t.exception(), StoreUnavailableError) for t in done)


async def test_a_closed_inbox_promises_nothing(inbox: Inbox) -> None:
    await inbox.close()
    with pytest.raises(StoreUnavailableError) as refused:
        await inbox.add(event("messages.edited"))
    assert not isinstance(refused.value, DeferredError)
    assert inbox.waiting == 0


async def test_a_stop_stores_all_that_was_kept(
    gate: Gate, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(gate, retry_seconds=60, batch_rows=2)
    gate.is_down = True
    for number in range(7):
        with pytest.raises(DeferredError):
            await inbox.add(edit(number))
    gate.is_down = False
    await inbox.close()
    assert len(rows(database_url)) == 7
    assert "lost" not in caplog.text


async def test_a_stop_without_the_database_says_how_much_is_lost(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(gate, retry_seconds=60)
    gate.is_down = True
    for number in range(3):
        with pytest.raises(DeferredError):
            await inbox.add(edit(number))
    await inbox.close()
    assert "3 deferred webhook events are lost: messages.edited" in caplog.text
    assert inbox.waiting == 0


async def test_what_fails_while_it_stops_is_not_said_to_be_kept(gate: Gate) -> None:
    inbox = Inbox(gate)
    gate.opened.clear()
    adding = asyncio.create_task(inbox.add(edit(1)))
    await until(lambda: gate.batches)
    closing = asyncio.create_task(inbox.close())
    await asyncio.sleep(0)
    gate.is_down = True
    gate.opened.set()
    await closing
    with pytest.raises(StoreUnavailableError) as refused:
        await adding
    assert not isinstance(refused.value, DeferredError)


async def test_a_cancelled_stop_leaves_nobody_waiting_and_is_cancelled(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    adding = [asyncio.create_task(inbox.add(message(n))) for n in range(2)]
    await until(lambda: gate.batches)
    adding += [asyncio.create_task(inbox.add(message(n))) for n in range(2, 5)]
    closing = asyncio.create_task(inbox.close(within_seconds=60))
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing], timeout=5)
    assert closing.cancelled()
    done, pending = await asyncio.wait(adding, timeout=5)
    assert not pending
    assert all(isinstance(t.exception(), StoreUnavailableError) for t in done)


async def waited_for(inbox: Inbox, *deliveries: Delivery) -> list[asyncio.Task[bool]]:
    """Queue deliveries whose callers wait."""
    adding = [asyncio.create_task(inbox.add(delivery)) for delivery in deliveries]
    await asyncio.sleep(0)
    return adding


async def left(inbox: Inbox, *deliveries: Delivery) -> None:
    """Queue deliveries whose callers do not wait any more."""
    adding = await waited_for(inbox, *deliveries)
    for each in adding:
        each.cancel()
    await asyncio.wait(adding)


async def test_a_stop_that_takes_too_long_tells_only_what_nobody_delivers_again(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each other delivery Evolution is told, or was told nothing."""
    inbox = Inbox(gate, retry_seconds=60, batch_rows=1)
    gate.is_down = True
    for number in range(2):
        with pytest.raises(DeferredError):
            await inbox.add(edit(number))
    gate.is_down = False
    gate.opened.clear()
    waiting = await waited_for(inbox, message(0), message(1), edit(2))
    await left(inbox, message(2), edit(3))
    await inbox.close(within_seconds=0.05)
    assert "3 deferred webhook events are lost" in caplog.text
    assert inbox.waiting == 0
    done, _ = await asyncio.wait(waiting, timeout=5)
    assert [type(task.exception()) for task in done] == [StoreUnavailableError] * 3


async def test_a_stop_without_the_database_tells_only_what_nobody_delivers_again(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(gate)
    gate.opened.clear()
    waiting = await waited_for(inbox, message(0))
    await until(lambda: gate.batches)
    waiting += await waited_for(inbox, edit(1))
    await left(inbox, message(2), edit(3))
    gate.is_down = True
    gate.opened.set()
    await inbox.close()
    assert caplog.text.count("1 deferred webhook events are lost") == 1
    for task in waiting:
        with pytest.raises(StoreUnavailableError):
            await task


async def test_a_stop_in_the_middle_of_a_second_attempt_tells_what_is_lost(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(gate, retry_seconds=0.01)
    gate.is_down = True
    with pytest.raises(DeferredError):
        await inbox.add(edit(1))
    gate.opened.clear()
    await until(lambda: inbox.waiting == 0)  # it is on its way again
    await inbox.close(within_seconds=0.05)
    assert "1 deferred webhook events are lost: messages.edited" in caplog.text
