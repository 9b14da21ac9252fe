"""What a dead process had shown is in its closed replies, whatever it was doing."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from sqlalchemy import text

from tests.integration.chat.looks import count, journal, message, waits_for_a_lock
from tests.integration.chat.owners import Owner, close_now
from tests.waiting import until
from viva_server.errors import FencedError
from viva_server.store.driver.database import Database

_SAME_ROW = text("INSERT INTO viva.journal VALUES (CAST(:id AS uuid), 5, 'X')")


async def test_an_owner_with_a_statement_under_way_is_closed_later(
    database_url: str, database: Database, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    with contextlib.suppress(ZeroDivisionError):
        async with database.transaction() as blocker:
            # The same row, not committed: the append has to wait for its fate, and has
            # locked its owner's row by then.
            await blocker.fetch_statement(_SAME_ROW, id=message_id)
            append = asyncio.create_task(owner.append(message_id, 5, " e também"))
            await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
            assert await close_now(database, owner.id) is None
            raise ZeroDivisionError
    await append
    assert await close_now(database, owner.id) == [message_id]
    assert message(database_url, message_id).content == "visto e também"


async def test_the_dead_take_no_more_text(
    database_url: str, database: Database, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    async with database.transaction() as closing:
        assert await closing.fetch_one("lock_process", process_id=owner.id)
        append = asyncio.create_task(owner.append(message_id, 5, " nunca visto"))
        await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
        await closing.fetch(
            "declare_dead", process_id=owner.id, judge_id=None, verdict="found",
            value="",
        )  # fmt: skip
        await closing.fetch(
            "close_from_journal", process_id=owner.id, message_ids=[message_id],
            finish_reason="crashed",
        )  # fmt: skip
    with pytest.raises(FencedError):
        await append
    assert message(database_url, message_id).content == "visto"
    assert journal(database_url, message_id) == []


async def test_all_text_whose_commit_was_answered_is_in_the_closed_reply(
    database_url: str, database: Database
) -> None:
    for _ in range(20):
        owner = Owner(database, await database.connect())
        await owner.register()
        message_id = await owner.start_reply(person=owner.id)
        shown: list[str] = []
        writing = asyncio.create_task(_write_until_fenced(owner, message_id, shown))
        while len(shown) < 4:
            await asyncio.sleep(0.001)
        while await close_now(database, owner.id) is None:
            await asyncio.sleep(0)
        await writing
        assert message(database_url, message_id).content == "".join(shown)
        await owner.connection.close()


async def _write_until_fenced(owner: Owner, message_id: str, shown: list[str]) -> None:
    length = 0
    with contextlib.suppress(FencedError):
        while True:
            text = f"{length} "
            await owner.append(message_id, length, text)
            shown.append(text)
            length += len(text)


async def test_more_replies_than_one_statement_closes_are_closed(
    database_url: str, database: Database, owner: Owner
) -> None:
    message_ids = [await owner.start_reply() for _ in range(101)]
    for message_id in message_ids[:3]:
        await owner.append(message_id, 0, message_id)
    closed = await close_now(database, owner.id)
    assert closed is not None
    assert set(closed) == set(message_ids)
    assert count(database_url, "live_replies") == count(database_url, "journal") == 0
    for message_id in message_ids[:3]:
        assert message(database_url, message_id)[2:] == (
            message_id, "partial", "crashed",
        )  # fmt: skip
    assert message(database_url, message_ids[3])[2:] == ("", "failed", "crashed")


async def test_two_who_close_it_close_each_reply_once(
    database: Database, owner: Owner
) -> None:
    message_ids = {await owner.start_reply() for _ in range(20)}
    closings = await asyncio.gather(*(close_now(database, owner.id) for _ in range(5)))
    (closed,) = [each for each in closings if each is not None]
    assert set(closed) == message_ids
