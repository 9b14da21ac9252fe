"""A webhook is a row before it is acknowledged, once, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.integration.gates import Gate, message, rows, stored
from tests.waiting import until
from viva_server.errors import (
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.ingress.inbox import Inbox


async def test_a_row_is_there_when_add_returns(inbox: Inbox, database_url: str) -> None:
    assert await inbox.add(message(1))
    columns = "event, kind, answer, trusted, is_known, instance, chat, message_id, tail"
    assert rows(database_url, columns) == [
        (
            "messages.upsert",
            "text",
            True,
            True,
            True,
            "loja",
            "5511988887777@s.whatsapp.net",
            "M1",
            "messages-upsert",
        )
    ]
    parsed = "form->>'text', body->'data'->'message'->>'conversation'"
    assert rows(database_url, parsed) == [("oi", "oi")]


async def test_a_second_delivery_is_counted_with_its_time(
    inbox: Inbox, database_url: str
) -> None:
    assert await inbox.add(message(1))
    for _ in range(40):
        assert not await inbox.add(message(1, "changed"))
    columns = "deliveries, cardinality(redelivered_at), form->>'text'"
    assert rows(database_url, columns) == [(41, 32, "oi")]


async def test_one_commit_takes_all_that_gathered_behind_the_last(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    first = asyncio.create_task(inbox.add(message(0)))
    await until(lambda: gate.batches)
    others = [asyncio.create_task(inbox.add(message(n % 20))) for n in range(1, 41)]
    await asyncio.sleep(0)
    gate.opened.set()
    assert await first
    new = await asyncio.gather(*others)
    assert sum(new) == 19
    assert [len(batch) for batch in gate.batches] == [1, 20]
    assert sum(count for _, count in rows(database_url)) == 41


async def test_a_row_is_stored_though_its_caller_went_away(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    callers = [asyncio.create_task(inbox.add(message(n))) for n in range(3)]
    await until(lambda: gate.batches)
    for caller in callers:
        caller.cancel()
    gate.opened.set()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    await stored(database_url, 3)


async def test_a_bad_row_fails_alone_and_is_stored_without_its_body(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.refuses = lambda bodies: "bad" in bodies
    texts = ["good", "bad", "good", "good"]
    added = await asyncio.gather(
        *(inbox.add(message(n, text)) for n, text in enumerate(texts))
    )
    assert added == [True] * 4
    columns = "message_id, body->>'removed'"
    assert sorted(rows(database_url, columns)) == [
        ("M0", None),
        ("M1", "body"),
        ("M2", None),
        ("M3", None),
    ]


async def test_a_row_that_is_refused_even_so_is_the_callers_error(
    inbox: Inbox, database_url: str
) -> None:
    bad = replace(message(1), form_json="{")
    good = asyncio.create_task(inbox.add(message(2)))
    with pytest.raises(StoreError):
        await inbox.add(bad)
    assert await good
    assert rows(database_url) == [("M2", 1)]


async def test_what_the_database_undid_is_repeated(inbox: Inbox, gate: Gate) -> None:
    gate.errors = [TransientStoreError(), TransientStoreError()]
    assert await inbox.add(message(1))


async def test_a_deadlock_that_stays_is_given_back(inbox: Inbox, gate: Gate) -> None:
    gate.errors = [TransientStoreError() for _ in range(3)]
    with pytest.raises(StoreUnavailableError):
        await inbox.add(message(1))
    assert inbox.waiting == 0


async def test_without_the_database_a_message_goes_back_to_evolution(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.errors = [StoreUnavailableError()]
    with pytest.raises(StoreUnavailableError):
        await inbox.add(message(1))
    assert await inbox.add(message(1))
    assert rows(database_url) == [("M1", 1)]


async def test_a_commit_whose_answer_was_lost_is_not_counted_twice(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    delivery = message(1)
    gate.loses_answer = True
    with pytest.raises(StoreUnavailableError):
        await inbox.add(delivery)
    assert await inbox.add(delivery)
    assert rows(database_url) == [("M1", 1)]


async def test_a_full_inbox_takes_no_more(inbox: Inbox, gate: Gate) -> None:
    gate.opened.clear()
    waiting = [asyncio.create_task(inbox.add(message(n))) for n in range(51)]
    await until(lambda: gate.batches)
    waiting += [asyncio.create_task(inbox.add(message(n))) for n in range(51, 80)]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert done
    assert all(isinstance(t.exception(), StoreUnavailableError) for t in done)
    gate.opened.set()
    await asyncio.wait(waiting)
    assert sum(task.exception() is None for task in waiting) == 80 - len(done)


async def test_the_queue_has_a_limit_in_bytes_that_is_free_again_once_stored(
    gate: Gate,
) -> None:
    inbox = Inbox(gate, max_queued_bytes=2 * message(10).size)
    for number in (10, 20):
        gate.opened.clear()
        gate.batches.clear()
        adding = [asyncio.create_task(inbox.add(message(number)))]
        await until(lambda: gate.batches)
        adding += [asyncio.create_task(inbox.add(message(number + n))) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError):
            await inbox.add(message(number + 3))
        gate.opened.set()
        assert await asyncio.gather(*adding) == [True] * 3
    await inbox.close()


async def test_two_processes_that_get_the_same_events_agree(
    database: Database, database_url: str
) -> None:
    inboxes = [Inbox(database), Inbox(database)]
    adding = [
        inbox.add(message(n)) for n in range(100) for inbox in inboxes for _ in range(2)
    ]
    added = await asyncio.gather(*adding)
    for inbox in inboxes:
        await inbox.close()
    assert sum(added) == 100
    assert {count for _, count in rows(database_url)} == {4}


async def behind(gate: Gate, inbox: Inbox, *deliveries: Delivery) -> list[list[str]]:
    """Queue deliveries behind a commit under way, and give the batches they make."""
    gate.opened.clear()
    adding = [asyncio.create_task(inbox.add(message("first")))]
    await until(lambda: gate.batches)
    adding += [asyncio.create_task(inbox.add(delivery)) for delivery in deliveries]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(*adding)
    assert gate.batches[0] == ["Mfirst"]
    return gate.batches[1:]


async def test_a_batch_has_so_many_rows_at_most_in_their_order(gate: Gate) -> None:
    inbox = Inbox(gate, batch_rows=3)
    batches = await behind(gate, inbox, *map(message, range(7)))
    assert batches == [["M0", "M1", "M2"], ["M3", "M4", "M5"], ["M6"]]
    await inbox.close()


@pytest.mark.parametrize(("spare", "sizes"), [(0, [2, 2, 1]), (-1, [1] * 5)])
async def test_a_batch_has_so_many_bytes_at_most(
    gate: Gate, spare: int, sizes: list[int]
) -> None:
    inbox = Inbox(gate, batch_bytes=2 * message(0).size + spare)
    batches = await behind(gate, inbox, *map(message, range(5)))
    assert [len(batch) for batch in batches] == sizes
    await inbox.close()


async def test_a_delivery_larger_than_a_batch_is_stored_alone(gate: Gate) -> None:
    inbox = Inbox(gate, batch_bytes=message(0).size)
    large = message(1, "x" * 1000)
    batches = await behind(gate, inbox, message(0), large, message(2))
    assert batches == [["M0"], ["M1"], ["M2"]]
    await inbox.close()


async def test_the_first_of_two_deliveries_of_one_key_is_stored(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate)
    await behind(gate, inbox, message(1, "one"), message(1, "two"))
    texts = dict(rows(database_url, "message_id, form->>'text'"))
    assert texts["M1"] == "one"
    await inbox.close()


async def test_a_refused_body_and_then_no_database_is_given_back(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.errors = [StoreError("refused"), StoreUnavailableError()]
    with pytest.raises(StoreUnavailableError):
        await inbox.add(message(1))
    assert rows(database_url) == []


async def test_what_was_stored_is_told_once_with_its_first_delivery(gate: Gate) -> None:
    told: list[Sequence[Delivery]] = []
    inbox = Inbox(gate, on_stored=told.append)
    first = message(1)
    await behind(gate, inbox, first, message(1), message(2))
    assert [[each.form["message_id"] for each in batch] for batch in told] == [
        ["Mfirst"], ["M1", "M2"],
    ]  # fmt: skip
    assert told[1][0] is first
    await inbox.close()
