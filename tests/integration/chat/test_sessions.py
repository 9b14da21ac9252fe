"""Which session is the newest, and what deleting one does to its live reply."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import count, slow_inserts
from tests.integration.chat.rooms import ANA, Line, Process, read, read_to_end
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import NotFoundError
from viva_server.store.people import Person


async def test_a_message_goes_to_the_newest_session_of_its_channel(
    process: Process,
) -> None:
    first = (await process.complete()).session_id
    second = (await process.sessions.add(ANA, "curto")).session_id
    assert second is not None
    whatsapp = await process.complete(person=Person("whatsapp", "ana"))
    assert whatsapp.session_id not in {first, second}
    assert (await process.complete()).session_id == second
    # A message makes its session the newest.
    assert (await process.complete(session_id=first)).session_id == first
    assert (await process.complete()).session_id == first
    snapshot = await process.sessions.snapshot(ANA, None, limit=120, before_seq=None)
    assert snapshot.session_id == first
    page = await process.sessions.list(ANA, page=1, page_size=20)
    assert [item.id for item in page.items] == [first, second]
    assert page.total == 2


async def test_the_end_of_a_reply_makes_its_session_the_newest(
    process: Process,
) -> None:
    reading, model = await process.begin()
    later = (await process.sessions.add(ANA, None)).session_id
    assert later is not None
    model.say("pronto")
    model.end()
    await read_to_end(reading)
    assert (await process.complete()).session_id == reading.session_id


async def test_a_mode_is_the_sessions_unless_the_message_has_its_own(
    process: Process,
) -> None:
    session = await process.sessions.add(ANA, "curto")
    for mode in (None, "longo", None):
        await process.complete(session_id=session.session_id, mode=mode)
    modes = [reply.conversation.modo for reply in process.dictation.replies]
    assert modes == ["curto", "longo", "curto"]


async def test_pages_of_messages_go_back_without_a_gap(process: Process) -> None:
    for _ in range(3):
        reading = await process.complete()
    seen: list[int] = []
    before: int | None = None
    has_more = True
    while has_more:
        page = await process.sessions.snapshot(
            ANA, reading.session_id, limit=4, before_seq=before
        )
        assert len(page.messages) <= 4
        seen = [message.seq for message in page.messages] + seen
        before, has_more = seen[0], page.has_more
        assert page.active_reply is None
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_snapshot_names_the_live_reply_and_where_it_stands(
    process: Process, other: Process
) -> None:
    await process.complete()
    reading, model = await process.begin()
    model.say("até ", "aqui")
    await read(reading, 8)
    for each in (process, other):
        for before in (None, 3):
            snapshot = await each.sessions.snapshot(
                ANA, None, limit=2, before_seq=before
            )
            assert snapshot.active_reply is not None
            assert snapshot.active_reply.message_id == reading.message_id
            assert snapshot.active_reply.offset == 8
    snapshot = await other.sessions.snapshot(ANA, None, limit=1, before_seq=None)
    assert snapshot.messages[0].content == "até aqui"
    assert snapshot.messages[0].status == "streaming"
    assert snapshot.has_more


@pytest.mark.parametrize("is_far", [False, True])
async def test_a_session_is_deleted_with_its_live_reply(
    database_url: str, process: Process, other: Process, is_far: bool
) -> None:
    reading, model = await process.begin(key="um")
    model.say("até aqui")
    await read(reading, 8)
    far = await other.chat.resume(ANA, reading.message_id, 8, Line())
    await (other if is_far else process).sessions.delete(ANA, reading.session_id)
    await asyncio.wait_for(model.closed.wait(), 30)
    _, ending = await read_to_end(reading)
    assert ending.finish_reason == "stopped"
    try:
        _, ending = await read_to_end(far)
        assert ending.finish_reason == "stopped"
    except ReaderCutError:  # it was gone at the next look
        pass
    for table in ("sessions", "messages", "live_replies", "journal"):
        assert count(database_url, table) == 0
    assert count(database_url, "idempotency_keys") == 0
    assert count(database_url, "far_readers") == 0
    with pytest.raises(NotFoundError):
        await process.sessions.delete(ANA, reading.session_id)
    again = await process.complete(key="um")
    assert again.message_id != reading.message_id


async def test_a_reply_that_starts_while_its_session_is_deleted_is_stopped(
    database_url: str, process: Process, other: Process
) -> None:
    slow_inserts(database_url, "live_replies", 0.5)
    session = await process.sessions.add(ANA, None)
    assert session.session_id is not None
    asking = asyncio.create_task(other.ask(session_id=session.session_id))
    await until(lambda: run_sql(database_url, _DAWDLING))
    await process.sessions.delete(ANA, session.session_id)
    _, ending = await read_to_end(await asking)
    assert ending.finish_reason == "stopped"
    assert other.runtime.presence.local == {}
    assert count(database_url, "messages") == count(database_url, "live_replies") == 0


_DAWDLING = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
