"""A reply of one process, read, stopped and superseded on another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.integration.chat.looks import count, message
from tests.integration.chat.owners import Owner, close_now
from tests.integration.chat.rooms import (
    ANA,
    Line,
    Process,
    read,
    read_to_end,
    running,
)
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat import journal
from viva_server.chat.presence import RemoteReplies
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import OverloadedError, ReplyInProgressError
from viva_server.store.driver.database import Statements
from viva_server.store.replies import (
    Chunk,
    append_chunks,
    load_reply,
)


async def test_a_remote_reader_gets_every_character_and_the_same_ending(
    process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    model.say("Olá, ")
    await read(reading, 5)
    middle = await other.chat.resume(ANA, reading.message_id, 3, Line())
    start = await other.chat.resume(ANA, reading.message_id, 0, Line())
    assert (middle.offset, start.offset) == (3, 0)
    for word in ("🙂 ", "tudo ", "bem?"):
        model.say(word)
        await asyncio.sleep(0.05)
    model.end()
    near, ending = await read_to_end(reading)
    assert await read_to_end(start) == ("Olá, " + near, ending)
    assert await read_to_end(middle) == (", " + near, ending)
    assert ending.chars == len("Olá, 🙂 tudo bem?")
    ended = await other.chat.resume(ANA, reading.message_id, 5, Line())
    assert await read_to_end(ended) == (near, ending)


async def test_an_offset_that_the_reply_does_not_have_becomes_0(
    process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    model.say("Olá")
    await read(reading, 3)
    for each in (process, other):
        again = await each.chat.resume(ANA, reading.message_id, 4, Line())
        assert again.offset == 0
        assert await read(again, 3) == "Olá"


async def test_a_cursor_ahead_of_a_following_process_is_good(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, model = await process.begin()
    follower = await other.chat.resume(ANA, reading.message_id, 0, Line())
    resumed = asyncio.Event()

    follow = RemoteReplies._follow

    async def follow_late(self: RemoteReplies) -> None:
        await resumed.wait()
        await follow(self)

    monkeypatch.setattr(RemoteReplies, "_follow", follow_late)
    model.say("visto ali")
    await read(reading, 9)
    ahead = await other.chat.resume(ANA, reading.message_id, 9, Line())
    beyond = await other.chat.resume(ANA, reading.message_id, 10, Line())
    assert (follower.reader.reply.length, ahead.offset, beyond.offset) == (0, 9, 0)
    resumed.set()
    model.say(", e aqui")
    model.end()
    whole, ending = await read_to_end(follower)
    assert await read_to_end(ahead) == (", e aqui", ending)
    assert await read_to_end(beyond) == (whole, ending)
    assert whole == "visto ali, e aqui"


async def test_a_cursor_ahead_of_the_owner_is_good(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has shown text whose commit the owner has not heard of yet."""
    reading, model = await process.begin()
    resumed = asyncio.Event()

    async def append_unheard(
        database: Statements, owner: str, chunks: Sequence[Chunk]
    ) -> None:
        await append_chunks(database, owner, chunks)
        await resumed.wait()

    monkeypatch.setattr(journal, "append_chunks", append_unheard)
    follower = await other.chat.resume(ANA, reading.message_id, 0, Line())
    model.say("visto ali")
    await read(follower, 9)
    ahead = await process.chat.resume(ANA, reading.message_id, 9, Line())
    beyond = await process.chat.resume(ANA, reading.message_id, 10, Line())
    assert (reading.reader.reply.length, ahead.offset, beyond.offset) == (0, 9, 0)
    resumed.set()
    model.say(", e aqui")
    model.end()
    whole, ending = await read_to_end(reading)
    assert await read_to_end(ahead) == (", e aqui", ending)
    assert await read_to_end(beyond) == (whole, ending)
    assert whole == "visto ali, e aqui"


async def test_a_reply_is_stopped_from_anywhere(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    model.say("até aqui")
    await read(reading, 8)
    stopped = await other.chat.stop(ANA, reading.message_id)
    assert (stopped.content, stopped.status) == ("até aqui", "partial")
    assert stopped.finish_reason == "stopped"
    _, ending = await read_to_end(reading)
    assert ending.finish_reason == "stopped"
    await asyncio.wait_for(model.closed.wait(), 30)
    assert await process.chat.stop(ANA, reading.message_id) == stopped
    assert count(database_url, "live_replies") == 0


async def test_a_remote_reader_keeps_a_new_message_out_until_it_leaves(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    far = await other.chat.resume(ANA, reading.message_id, 0, Line())
    process.chat.leave(reading)
    await until(lambda: count(database_url, "far_readers") == 1)
    await until(lambda: _left(database_url))
    for each in (process, other):
        with pytest.raises(ReplyInProgressError) as caught:
            await each.ask("Outra coisa")
        assert caught.value.message_id == reading.message_id
    model.say("visto de longe")
    await read(far, 14)
    other.chat.leave(far)
    await until(lambda: count(database_url, "far_readers") == 0)
    await other.complete("Outra coisa")
    assert message(database_url, reading.message_id)[2:] == (
        "visto de longe", "partial", "superseded",
    )  # fmt: skip


async def test_a_reader_here_keeps_a_message_elsewhere_out(
    process: Process, other: Process
) -> None:
    reading, _ = await process.begin()
    with pytest.raises(ReplyInProgressError):
        await other.ask("Outra coisa")
    assert reading.reader.reply.ending is None


async def test_a_reply_that_nobody_reads_is_superseded_from_elsewhere(
    database_url: str, process: Process, other: Process
) -> None:
    line = Line()
    reading, model = await process.begin(line=line)
    model.say("abandonado")
    await read(reading, 10)
    line.is_closed = True  # nobody says so: the ticker has to see it
    await other.complete("Outra coisa")
    assert message(database_url, reading.message_id)[2:] == (
        "abandonado", "partial", "superseded",
    )  # fmt: skip


async def test_grace_begins_when_the_last_reader_anywhere_has_left(
    database_url: str,
) -> None:
    async with (
        running(database_url, disconnect_grace_seconds=0.5) as owner,
        running(database_url) as other,
    ):
        reading, model = await owner.begin()
        far = await other.chat.resume(ANA, reading.message_id, 0, Line())
        await until(lambda: count(database_url, "far_readers") == 1)
        owner.chat.leave(reading)
        await asyncio.sleep(1.5)
        model.say("ainda aqui")
        assert await read(far, 10) == "ainda aqui"
        other.chat.leave(far)
        await until(
            lambda: message(database_url, reading.message_id).status == "partial"
        )
        assert message(database_url, reading.message_id)[2:] == (
            "ainda aqui", "partial", "disconnected",
        )  # fmt: skip
        await asyncio.wait_for(model.closed.wait(), 30)


async def test_who_comes_back_in_its_grace_keeps_the_reply(
    database_url: str,
) -> None:
    async with running(database_url, disconnect_grace_seconds=2) as process:
        reading, model = await process.begin()
        process.chat.leave(reading)
        await until(lambda: _left(database_url))
        again = await process.chat.resume(ANA, reading.message_id, 0, Line())
        await until(lambda: not _left(database_url))
        await asyncio.sleep(2.5)
        model.say("tudo")
        model.end()
        text, ending = await read_to_end(again)
        assert (text, ending.finish_reason) == ("tudo", "stop")


async def test_a_remote_reader_whose_process_died_counts_no_more(
    database_url: str, process: Process, other: Process
) -> None:
    reading, _ = await process.begin()
    await other.chat.resume(ANA, reading.message_id, 0, Line())
    await until(lambda: count(database_url, "far_readers") == 1)
    await other.runtime.presence.stop()
    process.chat.leave(reading)
    await until(lambda: _left(database_url))
    with pytest.raises(ReplyInProgressError):
        await process.ask("Outra coisa")
    run_sql(
        database_url,
        "UPDATE viva.far_readers SET seen_at = seen_at - interval '1 hour'",
    )
    with pytest.raises(ReplyInProgressError):  # no clock says that it left
        await process.ask("Outra coisa")
    await close_now(process.database, other.id)
    await process.complete("Outra coisa")
    assert message(database_url, reading.message_id).finish_reason == "superseded"


async def test_readers_of_a_deleted_reply_are_sent_away(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    model.say("apagado")
    await read(reading, 7)
    far = await other.chat.resume(ANA, reading.message_id, 7, Line())
    run_sql(
        database_url,
        f"DELETE FROM viva.sessions WHERE id = '{reading.session_id}'",
    )
    with pytest.raises(ReaderCutError):
        await read(far, 1)


async def test_remote_readers_are_told_again_when_their_process_is_another(
    database_url: str, process: Process, other: Process
) -> None:
    reading, model = await process.begin()
    reader = await other.chat.resume(ANA, reading.message_id, 0, Line())
    process.chat.leave(reading)
    told = "SELECT CAST(process_id AS text) FROM viva.far_readers"
    await until(lambda: (other.id,) in run_sql(database_url, told))
    await close_now(process.database, was := other.id)
    await until(lambda: other.id != was)
    await until(lambda: (other.id,) in run_sql(database_url, told))
    model.say("ainda")
    assert await read(reader, 5) == "ainda"


async def test_while_the_owner_is_silent_nobody_is_told_that_it_answers(
    process: Process, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    stored = await load_reply(process.database, ANA, message_id)
    assert stored is not None
    with pytest.raises(ReplyInProgressError):
        await process.ask("Outra coisa", session_id=stored.session_id)
    await until(lambda: process.runtime.ownership.is_silent(owner.id))
    with pytest.raises(OverloadedError):
        await process.ask("Outra coisa", session_id=stored.session_id)
    with pytest.raises(OverloadedError):
        await process.chat.stop(ANA, message_id)
    with pytest.raises(OverloadedError):
        await process.sessions.delete(ANA, stored.session_id)


def _left(dsn: str) -> bool:
    """Tell whether the owner has written that its last reader left."""
    return bool(
        run_sql(dsn, "SELECT 1 FROM viva.live_replies WHERE left_at IS NOT NULL")
    )
