"""A process that was declared dead writes nothing more, and goes on as another."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import journal, message, messages, waits_for_a_lock
from tests.integration.chat.owners import close_now, load_owned
from tests.integration.chat.rooms import Process, read, read_to_end
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import FencedError
from viva_server.store.driver.database import Database
from viva_server.store.replies import (
    Chunk,
    ClosedReply,
    append_chunks,
    close_replies,
)
from viva_server.values import new_id


def _declare_dead(dsn: str, process_id: str) -> None:
    run_sql(
        dsn,
        "UPDATE viva.processes SET dead_at = clock_timestamp()"
        f" WHERE id = '{process_id}'",
    )


async def test_no_statement_of_a_dead_owner_writes(
    database_url: str, database: Database, process: Process
) -> None:
    reading, model = await process.begin()
    model.say("antes")
    await read(reading, 5)
    dead = process.id
    _declare_dead(database_url, dead)
    with pytest.raises(FencedError):
        await append_chunks(database, dead, [Chunk(reading.message_id, 5, " depois")])
    closed = ClosedReply(reading.message_id, "antes depois", "complete", "stop")
    with pytest.raises(FencedError):
        await close_replies(database, dead, [closed])
    assert journal(database_url, reading.message_id) == [(0, "antes")]
    assert message(database_url, reading.message_id).status == "streaming"


async def test_a_write_that_is_refused_by_the_fence_is_counted(
    database: Database, process: Process
) -> None:
    reading, model = await process.begin()
    assert process.runtime.ownership._task is not None
    process.runtime.ownership._task.cancel()  # else the heartbeat may find it first
    await close_now(database, process.id)
    model.say("nunca visto")
    with pytest.raises(ReaderCutError):
        await read(reading, 1)
    process.chat.leave(reading)
    assert process.runtime.journal.counters.fenced_writes == 1


async def test_a_fenced_process_cuts_its_readers_and_goes_on_under_a_new_id(
    database_url: str, database: Database, process: Process
) -> None:
    reading, model = await process.begin()
    model.say("visto")
    await read(reading, 5)
    dead = process.id
    assert await close_now(database, dead) == [reading.message_id]
    model.say(" e nunca visto")
    model.end()
    with pytest.raises(ReaderCutError):
        await read(reading, 1)
    await asyncio.wait_for(model.closed.wait(), 30)
    stored = message(database_url, reading.message_id)
    assert stored[2:] == ("visto", "partial", "crashed")
    assert process.id != dead
    assert process.runtime.ownership.fencings == 1
    assert process.runtime.presence.local == {}
    process.chat.leave(reading)
    await until(lambda: _is_alive(database_url, process.id))
    await process.complete("E agora?")
    assert [m.status for m in messages(database_url, reading.session_id)] == [
        "complete", "partial", "complete", "complete",
    ]  # fmt: skip


async def test_a_silent_process_learns_from_its_heartbeat(
    database_url: str, database: Database, process: Process
) -> None:
    reading, _ = await process.begin()
    await close_now(database, process.id)
    with pytest.raises(ReaderCutError):
        await read(reading, 1)
    assert message(database_url, reading.message_id).status == "failed"


async def test_a_reply_that_is_being_started_by_the_dead_is_not_started(
    database_url: str, database: Database, process: Process
) -> None:
    await process.complete()
    dead = process.id
    async with database.transaction() as transaction:
        assert await transaction.fetch_one("lock_process", process_id=dead)
        asking = asyncio.create_task(process.ask("E agora?"))
        await until(lambda: waits_for_a_lock(database_url, "INTO viva.messages"))
        await transaction.fetch_one(
            "declare_dead", process_id=dead, judge_id=None, verdict="found", value="",
        )  # fmt: skip
    await asyncio.wait({asking}, timeout=30)
    reading = None if asking.exception() else asking.result()
    assert await load_owned(database, dead) == set()
    if reading is not None:  # the new id was there in time
        process.chat.leave(reading)
        assert await load_owned(database, process.id) == {reading.message_id}


async def test_a_fence_closes_nothing_of_the_new_owner(
    database: Database, process: Process
) -> None:
    reading, model = await process.begin()
    ownership = process.runtime.ownership
    ownership.fenced(new_id())
    assert ownership.fencings == 0
    model.say("ainda aqui")
    model.end()
    text, ending = await read_to_end(reading)
    assert (text, ending.status) == ("ainda aqui", "complete")
    assert await load_owned(database, process.id) == set()


async def test_a_beat_that_is_answered_late_fences_no_new_id(
    database_url: str, database: Database, process: Process
) -> None:
    ownership, dead = process.runtime.ownership, process.id
    async with database.transaction() as transaction:
        assert await transaction.fetch_one("lock_process", process_id=dead)
        await until(lambda: waits_for_a_lock(database_url, "beat_at"))
        await transaction.fetch_one(
            "declare_dead", process_id=dead, judge_id=None, verdict="found", value="",
        )  # fmt: skip
        ownership.fenced(dead)  # as the journal does
        living = process.id
    await until(lambda: _is_alive(database_url, living))
    await asyncio.sleep(1.2)
    assert (process.id, ownership.fencings) == (living, 1)


def _is_alive(dsn: str, process_id: str) -> bool:
    return bool(run_sql(dsn, f"SELECT 1 FROM viva.processes WHERE id = '{process_id}'"))
