"""What Evolution's queue waits for is kept in memory until it is stored."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.gates import Gate, edit, event, message, rows, stored
from tests.waiting import until
from viva_server.errors import StoreError, StoreUnavailableError
from viva_server.whatsapp.ingress.inbox import DeferredError, Inbox


async def test_an_event_that_evolution_waits_for_is_deferred_until_it_is_stored(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.errors = [StoreUnavailableError() for _ in range(5)]
    for name in ("messages.edited", "logout.instance", "remove.instance"):
        with pytest.raises(DeferredError):
            await inbox.add(event(name))
    await stored(database_url, 3)
    assert inbox.waiting == 0
    waited = "extract(epoch FROM clock_timestamp() - received_at) < 60"
    assert rows(database_url, waited) == [(True,)] * 3


async def test_what_cannot_be_kept_goes_back_to_evolution_too(
    inbox: Inbox, gate: Gate, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate.is_down = True
    for number in range(3):
        with pytest.raises(DeferredError):
            await inbox.add(edit(number))
    for number in range(3, 5):
        with pytest.raises(StoreUnavailableError) as refused:
            await inbox.add(edit(number))
        assert not isinstance(refused.value, DeferredError)
    assert inbox.waiting == 3
    gate.is_down = False
    await stored(database_url, 3)
    assert {name for name, _ in rows(database_url)} == {"E0", "E1", "E2"}
    assert "lost" not in caplog.text
    assert await inbox.add(edit(3))


async def test_what_is_deferred_has_a_limit_in_bytes_that_is_free_again_once_stored(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate, retry_seconds=0.02, max_deferred_bytes=2 * edit(10).size)
    for number in (10, 20):
        gate.is_down = True
        for each in range(2):
            with pytest.raises(DeferredError):
                await inbox.add(edit(number + each))
        with pytest.raises(StoreUnavailableError) as refused:
            await inbox.add(edit(number + 2))
        assert not isinstance(refused.value, DeferredError)
        gate.is_down = False
        await until(lambda: not inbox.waiting)
        await stored(database_url, number // 5)
    await inbox.close()


async def test_events_that_evolution_was_told_of_are_kept_beyond_the_limit(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    """They were queued when there was room, and answered 200 after half a second."""
    gate.opened.clear()
    adding = [asyncio.create_task(inbox.add(message(0)))]
    await until(lambda: gate.batches)
    adding += [asyncio.create_task(inbox.add(edit(number))) for number in range(8)]
    await asyncio.sleep(0)
    for task in adding:
        task.cancel()
    await asyncio.wait(adding)
    gate.is_down = True
    gate.opened.set()
    await until(lambda: len(gate.batches) > 3)
    gate.is_down = False
    await stored(database_url, 8)


async def test_a_full_inbox_keeps_what_evolution_waits_for(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    waiting = [asyncio.create_task(inbox.add(message(0)))]
    await until(lambda: gate.batches)
    waiting += [asyncio.create_task(inbox.add(message(n))) for n in range(1, 80)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(DeferredError):
        await inbox.add(event("messages.edited"))
    gate.opened.set()
    await asyncio.wait(waiting)
    taken = sum(task.exception() is None for task in waiting)
    await stored(database_url, taken + 1)


async def test_a_full_memory_of_kept_events_refuses_nothing_else(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate, retry_seconds=60, max_deferred=1)
    gate.is_down = True
    with pytest.raises(DeferredError):
        await inbox.add(edit(1))
    gate.is_down = False
    assert await inbox.add(message(1))
    await stored(database_url, 2)
    await inbox.close()


async def test_an_event_that_is_larger_than_the_queue_is_deferred_and_stored(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate, retry_seconds=0.02, max_queued_bytes=1)
    with pytest.raises(DeferredError):
        await inbox.add(edit(1))
    await stored(database_url, 1)
    await inbox.close()


async def test_a_kept_event_is_stored_with_the_time_at_which_it_came(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate, retry_seconds=60)
    gate.is_down = True
    with pytest.raises(DeferredError):
        await inbox.add(edit(1))
    gate.is_down = False
    inbox._deferred[0].since -= 3600
    await inbox.add(message(1))
    hours = "round(extract(epoch FROM clock_timestamp() - received_at) / 3600)"
    assert sorted(rows(database_url, hours)) == [(0,), (1,)]
    await inbox.close()


async def test_what_somebody_waits_for_goes_before_what_is_deferred(
    gate: Gate,
) -> None:
    inbox = Inbox(gate, retry_seconds=60, batch_rows=2)
    gate.is_down = True
    for number in range(3):
        with pytest.raises(DeferredError):
            await inbox.add(edit(number))
    gate.is_down = False
    gate.batches.clear()
    await inbox.add(message(1))
    await inbox.add(message(2))
    await inbox.close()
    assert [batch[0] for batch in gate.batches[:2]] == ["M1", "M2"]
    assert [len(batch) for batch in gate.batches] == [2, 2, 1]


async def test_an_awaited_event_whose_body_is_refused_is_deferred_without_it(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.errors = [StoreError("refused"), StoreUnavailableError()]
    with pytest.raises(DeferredError):
        await inbox.add(edit(1))
    await stored(database_url, 1)
    assert rows(database_url, "body->>'removed'") == [("body",)]
