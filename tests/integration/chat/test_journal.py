"""What a client has seen is in the database; how often that costs a commit."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import journal, message, waits_for_a_lock
from tests.integration.chat.rooms import (
    ANA,
    Line,
    Process,
    held,
    read,
    read_to_end,
    running,
)
from tests.postgres import PostgresServer, relaying, run_sql
from tests.waiting import until
from viva_server.chat import recovery
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import StoreLockedError
from viva_server.store.driver.database import Database, Statements
from viva_server.store.replies import Chunk, append_chunks


async def test_nothing_is_shown_before_its_commit(
    database_url: str, database: Database, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    elsewhere = await other.chat.resume(ANA, reading.message_id, 0, Line())
    async with held(database, process):
        model.say("segredo")
        await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
        await asyncio.sleep(0.3)  # three looks of the other process
        assert reading.reader.reply.length == elsewhere.reader.reply.length == 0
    assert await read(reading, 7) == await read(elsewhere, 7) == "segredo"
    assert journal(database_url, reading.message_id) == [(0, "segredo")]


async def test_the_ending_is_not_shown_before_its_commit(
    database_url: str, database: Database, process: Process
) -> None:
    reading, model = await process.begin()
    async with held(database, process):
        model.say("tudo")
        model.end()
        await until(lambda: waits_for_a_lock(database_url, "UPDATE viva.messages"))
        assert reading.reader.reply.ending is None
        assert reading.reader.reply.length == 0
    text, ending = await read_to_end(reading)
    stored = message(database_url, reading.message_id)
    assert (text, ending.status) == (stored.content, stored.status)
    assert (text, ending.chars) == ("tudo", 4)
    assert journal(database_url, reading.message_id) == []


@pytest.mark.parametrize("is_end", [False, True])
async def test_a_batch_whose_answer_was_lost_is_stored_once(
    postgres: PostgresServer, database_url: str, is_end: bool
) -> None:
    async with (
        relaying(postgres) as relay,
        running(relay.url(database_url)) as process,
    ):
        reading, model = await process.begin()
        model.say("um ")
        await read(reading, 3)
        relay.is_deaf = True
        model.say("dois ")
        if is_end:
            model.end()
            await until(
                lambda: message(database_url, reading.message_id).status == "complete"
            )
        else:
            await until(lambda: len(journal(database_url, reading.message_id)) == 2)
        assert reading.reader.cursor == reading.reader.reply.length == 3
        model.say("três")
        relay.is_deaf = False
        relay.cut()
        text = ""
        if not is_end:
            text = await read(reading, 9)
            rows = [(0, "um "), (3, "dois "), (8, "três")]
            assert journal(database_url, reading.message_id) == rows
            model.end()
        text += (await read_to_end(reading))[0]
    stored = message(database_url, reading.message_id)
    assert "um " + text == stored.content
    assert stored.content == ("um dois " if is_end else "um dois três")
    assert stored.status == "complete"


async def test_a_refused_row_fails_alone(
    database_url: str,
    database: Database,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "_ORPHAN_SECONDS", 0.2)
    run_sql(
        database_url,
        "ALTER TABLE viva.journal ADD CHECK (text <> 'nunca');"
        "ALTER TABLE viva.messages ADD CHECK (content NOT LIKE '%nunca%')",
    )
    persons = [ANA._replace(id=name) for name in ("ana", "bia", "caio")]
    begun = [await process.begin(person=person) for person in persons]
    for reading, model in begun:
        model.say("antes ")
        await read(reading, 6)
    async with held(database, process):
        begun[0][1].say("depois")
        await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
        # These two wait for the commit that is under way, and so go together.
        begun[1][1].say("nunca")
        begun[2][1].say("depois")
    assert await read(begun[0][0], 6) == await read(begun[2][0], 6) == "depois"
    with pytest.raises(ReaderCutError):
        await read(begun[1][0], 1)
    refused = begun[1][0].message_id
    await until(lambda: message(database_url, refused).status != "streaming")
    stored = message(database_url, refused)
    assert (stored.content, stored.status) == ("antes ", "partial")
    for reading, model in (begun[0], begun[2]):
        model.end()
        await read_to_end(reading)
        assert message(database_url, reading.message_id).content == "antes depois"


async def test_behind_a_lock_that_has_ended_rows_go_together_again(
    database_url: str,
    database: Database,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    async def refusing(statements: Statements, owner: str, chunks: list[Chunk]) -> None:
        sizes.append(len(chunks))
        if len(chunks) == 7 and sizes.count(7) == 1:
            raise StoreLockedError
        await append_chunks(statements, owner, chunks)

    persons = [ANA._replace(id=f"person {number}") for number in range(8)]
    begun = [await process.begin(person=person) for person in persons]
    monkeypatch.setattr("viva_server.chat.journal.append_chunks", refusing)
    async with held(database, process):
        begun[0][1].say("primeiro")
        await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
        for _, model in begun[1:]:
            model.say("primeiro")
    for reading, _ in begun:
        assert await read(reading, 8) == "primeiro"
    assert sizes == [1, 7, 1, 6]


async def test_a_busy_journal_commits_once_per_tick_and_an_idle_one_at_once(
    database_url: str,
) -> None:
    tick_seconds = 0.4
    async with running(database_url, journal_tick_seconds=tick_seconds) as process:
        loop = asyncio.get_running_loop()
        readings = [
            await process.begin(person=ANA._replace(id=f"pessoa {n}")) for n in range(5)
        ]
        began = loop.time()
        for _ in range(100):
            for _, model in readings:
                model.say("a")
            await asyncio.sleep(0.01)
        for reading, _ in readings:
            await read(reading, 100)
        spent = loop.time() - began
        rows = process.runtime.journal.counters.batch_rows
        commits = sum(rows.counts)
        assert commits <= spent / tick_seconds + 2
        assert rows.total <= 5 * commits


async def test_what_is_idle_leaves_or_ends_waits_for_no_tick(
    database_url: str,
) -> None:
    async with running(database_url) as process:
        # No setting allows it: none of this is to happen by a tick.
        process.runtime.journal._tick_seconds = 3600
        reading, model = await process.begin()
        model.say("primeiro ")
        assert await read(reading, 9) == "primeiro "
        model.say("segundo ")
        await asyncio.sleep(0.2)
        assert len(journal(database_url, reading.message_id)) == 1
        process.chat.leave(reading)
        await until(lambda: len(journal(database_url, reading.message_id)) == 2)
        again = await process.chat.resume(ANA, reading.message_id, 9, Line())
        model.say("terceiro")
        model.end()
        text, ending = await read_to_end(again)
    assert text == "segundo terceiro"
    assert ending.status == "complete"
