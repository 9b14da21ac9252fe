"""A webhook is a row before it is acknowledged, once, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.postgres import run_sql
from tests.waiting import until
from viva_server.errors import (
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.db import Database
from viva_server.whatsapp.delivery import Delivery, make_delivery
from viva_server.whatsapp.inbox import Inbox, KeptError

_ROW_START = re.compile(r'\["[0-9a-f-]{36}",')
_BODY = 13
"""Where the body stands among the fields of a row."""


def message(number: int | str, text: str = "oi") -> Delivery:
    body = {
        "event": "messages.upsert",
        "instance": "loja",
        "data": {
            "key": {"remoteJid": "5511988887777@s.whatsapp.net", "id": f"M{number}"},
            "message": {"conversation": text},
        },
    }
    return make_delivery("/messages-upsert", "", {}, body, trusted=True)


def event(name: str) -> Delivery:
    return make_delivery("", "", {}, {"event": name, "instance": "a"}, trusted=True)


class Gate:
    """The database, with a gate in front that counts, holds back or refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.batches: list[int] = []
        self.errors: list[Exception] = []
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False
        self.loses_answer = False
        self.is_down = False
        self.opened = asyncio.Event()
        self.opened.set()

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        self.batches.append(len(_ROW_START.findall(parameters["deliveries"])))
        await self.opened.wait()
        if self.is_down:
            raise StoreUnavailableError
        if self.errors:
            raise self.errors.pop(0)
        if self.refuses(parameters):
            raise StoreError("refused")
        rows = await self._database.fetch(query, **parameters)
        if self.loses_answer:
            self.loses_answer = False
            raise StoreUnavailableError(outcome_unknown=True)
        return rows


@pytest.fixture
def gate(database: Database) -> Gate:
    return Gate(database)


@pytest.fixture
async def inbox(gate: Gate) -> AsyncIterator[Inbox]:
    inbox = Inbox(gate, retry_seconds=0.02, max_queued=50, max_kept=3)
    yield inbox
    gate.opened.set()
    await inbox.close()


def rows(url: str, columns: str = "message_id, deliveries") -> list[tuple[Any, ...]]:
    return run_sql(url, f"SELECT {columns} FROM viva.inbox ORDER BY id")


async def stored(url: str, count: int) -> None:
    await until(lambda: len(rows(url)) >= count)


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
    assert gate.batches == [1, 20]
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
    gate.refuses = lambda given: any(
        "bad" in str(row[_BODY]) for row in json.loads(given["deliveries"])
    )
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


async def test_an_event_that_evolution_waits_for_is_kept_until_it_is_stored(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.errors = [StoreUnavailableError() for _ in range(5)]
    for name in ("messages.edited", "logout.instance", "remove.instance"):
        with pytest.raises(KeptError):
            await inbox.add(event(name))
    await stored(database_url, 3)
    assert inbox.waiting == 0
    waited = "extract(epoch FROM clock_timestamp() - received_at) < 60"
    assert rows(database_url, waited) == [(True,)] * 3


def edit(number: int | str) -> Delivery:
    data = {"key": {"id": f"E{number}"}, "type": 14}
    body = {"event": "messages.edited", "data": data}
    return make_delivery("", "", {}, body, trusted=True)


async def test_what_cannot_be_kept_goes_back_to_evolution_too(
    inbox: Inbox, gate: Gate, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate.is_down = True
    for number in range(3):
        with pytest.raises(KeptError):
            await inbox.add(edit(number))
    for number in range(3, 5):
        with pytest.raises(StoreUnavailableError) as refused:
            await inbox.add(edit(number))
        assert not isinstance(refused.value, KeptError)
    assert inbox.waiting == 3
    gate.is_down = False
    await stored(database_url, 3)
    assert {name for name, _ in rows(database_url)} == {"E0", "E1", "E2"}
    assert "lost" not in caplog.text
    assert await inbox.add(edit(3))


async def test_what_is_kept_has_a_limit_in_bytes_that_is_free_again_once_stored(
    gate: Gate, database_url: str
) -> None:
    inbox = Inbox(gate, retry_seconds=0.02, max_kept_bytes=2 * edit(10).size)
    for number in (10, 20):
        gate.is_down = True
        for each in range(2):
            with pytest.raises(KeptError):
                await inbox.add(edit(number + each))
        with pytest.raises(StoreUnavailableError) as refused:
            await inbox.add(edit(number + 2))
        assert not isinstance(refused.value, KeptError)
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


async def test_a_full_inbox_keeps_what_evolution_waits_for(
    inbox: Inbox, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    waiting = [asyncio.create_task(inbox.add(message(0)))]
    await until(lambda: gate.batches)
    waiting += [asyncio.create_task(inbox.add(message(n))) for n in range(1, 80)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(KeptError):
        await inbox.add(event("messages.edited"))
    gate.opened.set()
    await asyncio.wait(waiting)
    taken = sum(task.exception() is None for task in waiting)
    await stored(database_url, taken + 1)


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
    assert not isinstance(refused.value, KeptError)
    assert inbox.waiting == 0


async def test_a_stop_stores_all_that_was_kept(
    gate: Gate, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(gate, retry_seconds=60, batch_rows=2)
    gate.is_down = True
    for number in range(7):
        with pytest.raises(KeptError):
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
        with pytest.raises(KeptError):
            await inbox.add(edit(number))
    await inbox.close()
    assert caplog.text.count("messages.edited is lost") == 3
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
    assert not isinstance(refused.value, KeptError)


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
