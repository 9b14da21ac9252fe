"""A live reply: fed by its responder, taken by the journal, ended once."""

from __future__ import annotations

import asyncio

import pytest

from viva_server.chat.reply import LiveReply
from viva_server.store.replies import Chunk, ClosedReply
from viva_server.values import FinishReason

BACKLOG_CHARS = 65_536


class Marks:
    """The journal's side: how often a reply was marked, and how urgently."""

    def __init__(self) -> None:
        self.at_once: list[bool] = []

    def mark(self, reply: LiveReply, *, at_once: bool = False) -> None:
        assert reply.message_id == "m"
        self.at_once.append(at_once)


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def done() -> list[LiveReply]:
    return []


@pytest.fixture
def reply(marks: Marks, done: list[LiveReply]) -> LiveReply:
    return made(marks, done)


def made(marks: Marks, done: list[LiveReply], max_chars: int = 1_000_000) -> LiveReply:
    return LiveReply(
        "m", seq=2, journal=marks, max_chars=max_chars, on_done=done.append
    )


def commit(reply: LiveReply) -> Chunk:
    """Do what the journal does with one chunk."""
    chunk = reply.take_chunk()
    assert chunk is not None
    reply.chunk_committed(chunk)
    return chunk


def close(reply: LiveReply) -> ClosedReply:
    """Do what the journal does with the end."""
    closed = reply.take_close()
    reply.close_committed(closed)
    return closed


def test_what_is_fed_is_one_chunk_at_its_place(reply: LiveReply, marks: Marks) -> None:
    assert reply.take_chunk() is None
    reply.feed("a😀")
    reply.feed("")
    reply.feed("b")
    assert marks.at_once == [False, False]
    assert commit(reply) == Chunk("m", 0, "a😀b")
    assert reply.take_chunk() is None
    reply.feed("c")
    assert commit(reply) == Chunk("m", 3, "c")
    assert reply.text_after(0) == "a😀bc"


def test_nothing_is_readable_before_its_commit(reply: LiveReply) -> None:
    reply.feed("abc")
    assert (reply.length, reply.text_after(0)) == (0, "")
    commit(reply)
    assert reply.text_after(0) == "abc"


def test_a_flush_is_urgent_only_with_something_to_commit(
    reply: LiveReply, marks: Marks
) -> None:
    reply.flush()
    assert marks.at_once == []
    reply.feed("a")
    reply.flush()
    assert marks.at_once == [False, True]


@pytest.mark.parametrize(
    ("fed", "text", "reason"),
    [
        (["abcd"], "abcd", "stop"),
        (["abc", "d"], "abcd", "stop"),
        (["abcde"], "abcd", "limit"),
        (["abcd", "e"], "abcd", "limit"),
        (["ab", "cdef", "gh"], "abcd", "limit"),
        (["ã😀bc", "d"], "ã😀bc", "limit"),
    ],
)
def test_a_reply_is_cut_beyond_its_limit_only(
    marks: Marks, done: list[LiveReply], fed: list[str], text: str, reason: str
) -> None:
    reply = made(marks, done, max_chars=4)
    for delta in fed:
        reply.feed(delta)
    reply.end("stop")
    closed = close(reply)
    assert (closed.text, closed.finish_reason) == (text, reason)


def test_the_first_end_stays_and_nothing_is_fed_after_it(
    reply: LiveReply, marks: Marks
) -> None:
    reply.feed("a")
    reply.end("stopped")
    reply.feed("b")
    reply.end("upstream_error", "upstream_timeout")
    assert marks.at_once == [False, True]
    closed = close(reply)
    assert (closed.text, closed.status) == ("a", "partial")
    assert (closed.finish_reason, closed.error_code) == ("stopped", None)


@pytest.mark.parametrize(
    ("text", "reason", "code", "status", "stored_reason", "stored_code"),
    [
        ("a", "stop", None, "complete", "stop", None),
        ("a", "length", None, "complete", "length", None),
        ("a", "limit", None, "partial", "limit", None),
        ("a", "upstream_error", "x", "partial", "upstream_error", None),
        ("", "stop", None, "failed", "upstream_error", "upstream_empty"),
        ("", "length", None, "failed", "length", "length"),
        ("", "content_filter", None, "failed", "content_filter", "content_filter"),
        ("", "upstream_error", "x", "failed", "upstream_error", "x"),
        ("", "stopped", None, "failed", "stopped", "stopped"),
        ("", "limit", "reply_too_slow", "failed", "limit", "reply_too_slow"),
    ],
)
def test_an_end_has_the_status_of_what_there_is(
    reply: LiveReply,
    text: str,
    reason: FinishReason,
    code: str | None,
    status: str,
    stored_reason: str,
    stored_code: str | None,
) -> None:
    reply.feed(text)
    reply.end(reason, code)
    closed = close(reply)
    assert (closed.status, closed.finish_reason) == (status, stored_reason)
    assert closed.error_code == stored_code
    assert reply.ending is not None
    assert (reply.ending.status, reply.ending.message_count) == (status, 2)


def test_a_close_has_the_whole_text_and_readers_get_its_rest(
    reply: LiveReply, done: list[LiveReply]
) -> None:
    reply.feed("ab")
    commit(reply)
    reply.feed("cd")
    reply.end("stop")
    closed = reply.take_close()
    assert closed.text == "abcd"
    assert (reply.ending, reply.text_after(0), done) == (None, "ab", [])
    reply.close_committed(closed)
    assert reply.text_after(2) == "cd"
    assert reply.ending is not None
    assert (reply.ending.chars, done) == (4, [reply])
    assert reply.done.is_set()


async def test_a_responder_waits_while_too_much_is_not_committed(
    reply: LiveReply,
) -> None:
    reply.feed("x" * (BACKLOG_CHARS - 1))
    fullness = [reply.is_full]
    reply.feed("x")
    fullness.append(reply.is_full)
    waiting = asyncio.create_task(reply.room())
    await asyncio.sleep(0)
    chunk = reply.take_chunk()
    assert chunk is not None
    await asyncio.sleep(0)
    # What is taken is not stored yet: the room comes with the commit.
    assert not waiting.done()
    reply.chunk_committed(chunk)
    await waiting
    assert [*fullness, reply.is_full] == [False, True, False]


async def test_a_second_backlog_waits_for_its_own_commit(reply: LiveReply) -> None:
    reply.feed("x" * BACKLOG_CHARS)
    first = reply.take_chunk()
    reply.feed("y" * BACKLOG_CHARS)
    waiting = asyncio.create_task(reply.room())
    await asyncio.sleep(0)
    assert first is not None
    reply.chunk_committed(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert commit(reply).text[0] == "y"
    await waiting


def test_an_end_stops_the_responder_once(reply: LiveReply) -> None:
    stops: list[bool] = []
    reply.on_end = lambda: stops.append(True)
    reply.feed("x" * BACKLOG_CHARS)
    reply.end("stopped")
    reply.end("shutdown")
    assert (stops, reply.is_full) == ([True], False)


def test_a_dropped_reply_forgets_what_nobody_saw(
    reply: LiveReply, marks: Marks, done: list[LiveReply]
) -> None:
    reply.feed("ab")
    commit(reply)
    reply.feed("cd")
    reply.drop()
    reply.drop()
    reply.feed("ef")
    assert reply.take_chunk() is None
    assert (reply.text_after(0), reply.is_cut, reply.ending) == ("ab", True, None)
    assert done == [reply]
    # It is not marked to be closed: its row is another process's now.
    assert marks.at_once == [False, False]
