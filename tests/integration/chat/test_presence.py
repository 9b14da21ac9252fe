"""Who reads is known in time, and forgotten when a reply has ended."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import count, message
from tests.integration.chat.rooms import ANA, Line, Process, read, running
from tests.waiting import until
from viva_server.chat import ownership, presence
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import ReplyInProgressError
from viva_server.store.driver.database import Database


def test_the_times_are_those_of_the_contract() -> None:
    assert presence.WATCH_SECONDS == 0.1
    assert presence._SHARE_SECONDS == 0.2
    assert presence.KEEP_ALIVE_SECONDS == 15.0
    assert presence.WRITE_DEADLINE_SECONDS == 20.0
    assert presence.AWAY_SECONDS == 30.0
    assert presence._FOLLOW_SECONDS == 0.1
    assert presence._RENEW_SECONDS == 1.0
    assert (ownership.BEAT_SECONDS, ownership.LOOK_SECONDS) == (0.5, 0.1)
    assert (ownership.SILENT_SECONDS, ownership.KEPT_SECONDS) == (1.5, 15.0)


async def test_a_remote_reader_counts_for_as_long_as_it_reads(
    process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    process.chat.leave(reading)
    await asyncio.sleep(4.0)
    with pytest.raises(ReplyInProgressError):
        await process.ask("Outra coisa")
    model.say("ainda")
    assert await read(reader, 5) == "ainda"


async def test_a_remote_reader_that_left_is_followed_no_more(
    process: Process, other: Process
) -> None:
    reading, _ = await process.begin()
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    other.chat.leave(reader)
    await until(lambda: not other.runtime.remote._replies)
    await until(lambda: not other.runtime.remote._some.is_set())
    again = await other.chat.resume(ANA, reading.message_id, 0, Line())
    assert other.runtime.remote._some.is_set()
    other.chat.leave(again)


async def test_a_stop_cuts_who_reads_a_remote_reply(
    database_url: str, process: Process
) -> None:
    reading, model = await process.begin()
    model.say("até aqui")
    await read(reading, 8)
    async with running(database_url) as leaving:
        reader = await leaving.chat.resume(ANA, reading.message_id, 8, Line())
        reading_on = asyncio.create_task(read(reader, 1))
        await asyncio.sleep(0)
        draining = asyncio.create_task(leaving.runtime.drain())
        await asyncio.wait([reading_on], timeout=30)
        assert isinstance(reading_on.exception(), ReaderCutError)
        leaving.chat.leave(reader)
        await draining


async def test_a_remote_reader_is_cut_when_the_database_is_away_for_too_long(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    following = other.runtime.remote
    following._away_seconds = 1.0
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    model.say("até aqui")
    await read(reader, 8)
    await asyncio.sleep(1.2)  # for longer than it may be away
    away = Database(database_url)
    await away.open()
    await away.close()
    loop = asyncio.get_running_loop()
    since = loop.time()
    following._database = away
    with pytest.raises(ReaderCutError):
        await read(reader, 1)
    assert loop.time() - since > 0.8
    other.chat.leave(reader)
    following._database = other.database
    model.say(", e de volta")
    again = await other.chat.resume(ANA, reading.message_id, 8, Line())
    assert await read(again, 12) == ", e de volta"


async def test_a_short_outage_cuts_no_remote_reader(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    away = Database(database_url)
    await away.open()
    await away.close()
    other.runtime.remote._database = away
    await asyncio.sleep(0.5)
    other.runtime.remote._database = other.database
    model.say("de volta")
    assert await read(reader, 8) == "de volta"


async def test_a_reply_that_was_left_in_an_outage_ends_after_it(
    database_url: str,
) -> None:
    async with running(database_url, disconnect_grace_seconds=0.2) as owner:
        reading, _ = await owner.begin()
        presence = owner.runtime.presence
        away = Database(database_url)
        await away.open()
        await away.close()
        presence._database, here = away, presence._database
        owner.chat.leave(reading)
        await asyncio.sleep(1.0)
        assert message(database_url, reading.message_id).status == "streaming"
        presence._database = here
        await until(
            lambda: (
                message(database_url, reading.message_id).finish_reason
                == "disconnected"
            )
        )


async def test_who_reads_elsewhere_is_asked_before_a_reply_is_ended(
    database_url: str, other: Process
) -> None:
    async with running(database_url, disconnect_grace_seconds=0.0) as owner:
        reading, model = await owner.begin()
        watching = owner.runtime.presence
        watching._tasks[1].cancel()  # the exchange with the database
        await asyncio.sleep(0)
        reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
        await until(lambda: count(database_url, "far_readers") == 1)
        owner.chat.leave(reading)
        watching._watch()
        await asyncio.sleep(0.3)
        await watching._share()
        model.say("ainda")
        assert await read(reader, 5) == "ainda"
        other.chat.leave(reader)
        await until(lambda: count(database_url, "far_readers") == 0)
        await watching._share()
        await watching._share()
        await until(
            lambda: (
                message(database_url, reading.message_id).finish_reason
                == "disconnected"
            )
        )


async def test_the_grace_begins_anew_when_a_remote_reader_has_left(
    database_url: str, other: Process
) -> None:
    async with running(database_url, disconnect_grace_seconds=4.0) as owner:
        reading, _ = await owner.begin()
        owner.chat.leave(reading)
        await until(lambda: owner.runtime.presence._unread_since)
        reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
        await asyncio.sleep(4.5)
        other.chat.leave(reader)
        await until(lambda: count(database_url, "far_readers") == 0)
        await asyncio.sleep(1.0)
        assert message(database_url, reading.message_id).status == "streaming"


async def test_the_grace_begins_anew_when_who_came_back_has_left(
    database_url: str,
) -> None:
    async with running(database_url, disconnect_grace_seconds=3.0) as owner:
        reading, _ = await owner.begin()
        owner.chat.leave(reading)
        await until(lambda: owner.runtime.presence._unread_since)
        again = await owner.chat.resume(ANA, reading.message_id, 0, Line())
        await asyncio.sleep(3.5)
        owner.chat.leave(again)
        await asyncio.sleep(1.0)
        assert message(database_url, reading.message_id).status == "streaming"


async def test_nothing_is_remembered_of_replies_that_ended(
    database_url: str, process: Process, other: Process
) -> None:
    watching = process.runtime.presence
    reading, model = await process.begin()
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    process.chat.leave(reading)
    await until(lambda: watching._told_left and watching._read_remotely)
    other.chat.leave(reader)
    await until(lambda: watching._unread_since)
    model.say("tudo")
    model.end()
    await until(lambda: message(database_url, reading.message_id).status == "complete")
    await until(lambda: not (watching._told_left or watching._read_remotely))
    await until(lambda: not watching._unread_since)
    await until(lambda: not watching._nudge.is_set())
