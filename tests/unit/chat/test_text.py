"""The text of a reply and the cursors into it."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.chat.reply import (
    PIECE_CHARS,
    Reader,
    ReaderCutError,
    ReaderGoneError,
    ReplyText,
    ending_of,
)
from viva_server.store.replies import ClosedReply


class Open:
    """A connection that stays."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise AssertionError("nobody asked for it")


def reader_of(reply: ReplyText, cursor: int = 0) -> Reader:
    reader = Reader(reply, cursor, Open(), 0.0)
    reply.readers.add(reader)
    return reader


ENDING = ending_of(ClosedReply("m", "ã😀", "complete", "stop"), "ã😀", 2)

chunks = st.lists(st.text(alphabet="aã😀\n", min_size=1, max_size=5), max_size=8)


@given(
    st.text(alphabet="xy", max_size=3),
    chunks,
    st.integers(0, 50),
    st.integers(1, 50),
)
def test_text_after_an_offset_is_plain_slicing(
    first: str, more: list[str], offset: int, limit: int
) -> None:
    reply = ReplyText("m", first)
    for chunk in more:
        reply.committed(chunk)
    whole = first + "".join(more)
    assert reply.length == len(whole)
    assert reply.text_after(offset) == whole[offset:]
    assert reply.text_after(offset, limit) == whole[offset : offset + limit]


def test_an_ending_counts_characters_and_hashes_utf_8() -> None:
    assert ENDING.chars == 2
    assert ENDING.sha256 == hashlib.sha256("ã😀".encode()).hexdigest()


async def test_a_reader_gets_text_then_the_ending() -> None:
    reply = ReplyText("m")
    reader = reader_of(reply)
    reply.committed("ã")
    reply.committed("😀")
    reply.closed(ENDING)
    assert await reader.next() == "ã😀"
    assert reader.cursor == 2
    assert await reader.next() is None
    assert await reader.next() is None


async def test_a_reader_waits_for_what_is_behind_its_cursor() -> None:
    reply = ReplyText("m", "abc")
    reader = reader_of(reply, 3)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    reply.committed("d")
    assert await waiting == "d"
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reply.closed(ENDING)
    assert await waiting is None


async def test_a_reader_of_an_ended_reply_gets_the_rest_at_once() -> None:
    reply = ReplyText("m", "abc")
    reply.ending = ENDING
    reader = reader_of(reply, 1)
    assert [await reader.next(), await reader.next()] == ["bc", None]


async def test_a_long_text_is_given_in_pieces() -> None:
    whole = "ã" * (2 * PIECE_CHARS + 1)
    reply = ReplyText("m")
    reader, slot = reader_of(reply), Slot()
    reader.offer = slot
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reply.committed(whole)
    reply.closed(ENDING)
    pieces = [await waiting, await reader.next()]
    assert (pieces, reader.cursor) == ([whole[:PIECE_CHARS]] * 2, 2 * PIECE_CHARS)
    assert [await reader.next(), await reader.next()] == ["ã", None]
    assert slot.taken == []


async def test_a_cut_comes_after_the_text_that_is_committed() -> None:
    reply = ReplyText("m", "abc")
    reader = reader_of(reply)
    reply.cut()
    assert await reader.next() == "abc"
    with pytest.raises(ReaderCutError):
        await reader.next()


async def test_a_cut_wakes_a_reader_that_waits() -> None:
    reply = ReplyText("m")
    one, other = reader_of(reply), reader_of(reply)
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    one.is_cut = True  # this one only, as when the database is away
    one.wake()
    with pytest.raises(ReaderCutError):
        await waiting
    reply.committed("x")
    assert await other.next() == "x"


async def test_a_reader_that_is_gone_gets_nothing_more() -> None:
    reply = ReplyText("m", "abc")
    reader = reader_of(reply)
    reader.is_gone = True
    with pytest.raises(ReaderGoneError):
        await reader.next()


async def test_a_silence_is_told_once_and_text_goes_before_it() -> None:
    reply = ReplyText("m")
    reader = reader_of(reply)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reader.is_silent = True
    reader.wake()
    assert await waiting == ""
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.is_silent = True
    reply.committed("x")
    assert await waiting == "x"


async def test_a_cancelled_wait_loses_nothing() -> None:
    reply = ReplyText("m")
    reader = reader_of(reply)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    waiting.cancel()
    reply.committed("x")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (reader.cursor, await reader.next()) == (0, "x")


class Slot:
    """Takes what is offered, as long as it is open."""

    def __init__(self) -> None:
        self.is_open = True
        self.taken: list[tuple[str, int]] = []

    def __call__(self, text: str, cursor: int) -> bool:
        if self.is_open:
            self.taken.append((text, cursor))
        return self.is_open


async def test_text_that_is_taken_at_once_does_not_wake_who_waits() -> None:
    reply = ReplyText("m", "abc")
    reader, slot = reader_of(reply, 1), Slot()
    reader.offer = slot
    assert await reader.next() == "bc"
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reply.committed("d")
    reply.committed("ef")
    await asyncio.sleep(0)
    assert slot.taken == [("d", 4), ("ef", 6)]
    assert not waiting.done()
    reply.closed(ENDING)
    assert await waiting is None


async def test_text_that_is_not_taken_is_given_to_who_waits() -> None:
    reply = ReplyText("m")
    reader, slot = reader_of(reply), Slot()
    reader.offer, slot.is_open = slot, False
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reply.committed("a")
    slot.is_open = True
    reply.committed("b")  # not past the "a" that is on its way
    assert await waiting == "ab"
    assert slot.taken == []


async def test_a_reader_that_knows_more_gets_only_what_is_new_to_it() -> None:
    """It comes from another process, and this one has yet to hear of that text."""
    reply = ReplyText("m", "ab")
    reader, slot = reader_of(reply, 4), Slot()
    reader.offer = slot
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reply.committed("c")
    await asyncio.sleep(0)
    reply.committed("def")
    assert slot.taken == []
    assert (await waiting, reader.cursor) == ("ef", 6)


async def test_nothing_is_offered_for_a_reader_that_is_gone() -> None:
    reply = ReplyText("m")
    reader, slot = reader_of(reply), Slot()
    reader.offer = slot
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    reader.is_gone = True
    reply.committed("a")
    with pytest.raises(ReaderGoneError):
        await waiting
    assert slot.taken == []


def test_a_wake_without_a_wait_does_nothing() -> None:
    reader_of(ReplyText("m")).wake()
