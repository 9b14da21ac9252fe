"""The decoder against WHATWG's HTML § 9.2.6, however the bytes are cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from viva_server.errors import SseDecodeError
from viva_server.responders.sse_decoder import ServerEvent, SseDecoder

FRAGMENTS = st.sampled_from(
    [
        b"data: a", b"data:", b"data", b"data:  b", b"data: \xc3\xa7", b"\xc3", b"\xa7",
        b"id: 1", b"id", b"id: \x00", b"event: e", b"event", b"retry: 10", b"retry: x",
        b": comment", b":", b"other: c", b"\xef\xbb\xbf", b" ", b"\r", b"\n", b"\n",
        b"\n\n", b"\r\n", b"\r\n", b"\x00", b"\xf0\x9f\x98\x80",
    ]
)  # fmt: skip
STREAMS = st.lists(FRAGMENTS, max_size=40).map(b"".join)


def whole(stream: bytes) -> list[ServerEvent]:
    return SseDecoder().feed(stream)


def by_the_book(stream: bytes) -> list[ServerEvent]:
    """The standard's algorithm, word by word, on the whole stream."""
    events: list[ServerEvent] = []
    text = stream.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    data = event_type = last_id = ""
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        if line == "":
            if data:
                event = event_type or "message"
                events.append(ServerEvent(data.removesuffix("\n"), event, last_id))
            data = event_type = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event_type = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@given(STREAMS)
def test_it_does_what_the_standard_says(stream: bytes) -> None:
    assert whole(stream) == by_the_book(stream)


EVENTS = st.sampled_from([b"data: a\n\n", b"data: \xc3\n\n", b"data: \n\n"])


@given(st.lists(EVENTS | FRAGMENTS, max_size=20))
@example([b"event: e", b"\n", b"data: a\n\n"])
@example([b"data: b\n", b"data: a\n\n"])
@example([b"\n", b"id: 1", b"data: a\n\n"])
@example([b"data: b\n\r", b"\n", b"data: a\n\n"])
def test_events_that_come_singly_are_those_of_the_whole(pieces: list[bytes]) -> None:
    decoder = SseDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    assert events == by_the_book(b"".join(pieces))


@given(st.lists(EVENTS | FRAGMENTS, max_size=20))
@example([b"data: a\n\n", b"event: e", b"\n", b"data: a\n\n"])
@example([b"data: a\n\n", b"data: b\n", b"data: a\n\n"])
@example([b"data: a\n\n", b"\n", b"id: 1", b"data: a\n\n"])
@example([b"data: a\n\n", b"id: 1\n\n", b"data: a\n\n"])
@example([b"data: a\n\n", b"data: b\n\r", b"\n", b"data: a\n\n"])
def test_lone_events_that_are_taken_before_are_those_of_the_whole(
    pieces: list[bytes],
) -> None:
    decoder = SseDecoder()
    events: list[ServerEvent] = []
    for piece in pieces:
        if (data := decoder.lone_data(piece)) is None:
            events += decoder.feed(piece)
        else:
            text = data.decode("utf-8", "replace")
            events.append(ServerEvent(text, id=decoder.last_event_id))
    assert events == by_the_book(b"".join(pieces))


def test_a_lone_event_is_taken_as_it_came_up_to_the_limit() -> None:
    decoder = SseDecoder(max_event_bytes=10)
    assert decoder.lone_data(b"data: a\n\n") is None  # a BOM may stand before it
    decoder.feed(b": hi\n")
    assert decoder.lone_data(b"data: \xff\xc3\n\n") == b"\xff\xc3"
    assert decoder.lone_data(b"data: 4567\n\n") == b"4567"
    for other in (
        b"data: 45678\n\n",
        b"data: a\r\n",
        b"data: a\rb\n\n",
        b"data:a\n\n",
        b"data: a\n",
        b"\n\n",
    ):
        assert decoder.lone_data(other) is None


@given(st.lists(st.binary(max_size=5) | FRAGMENTS, max_size=40), st.integers(1, 9))
def test_it_does_not_matter_where_the_bytes_are_cut(
    pieces: list[bytes], size: int
) -> None:
    stream = b"".join(pieces)
    decoder = SseDecoder()
    evenly = (stream[at : at + size] for at in range(0, len(stream), size))
    assert [event for piece in evenly for event in decoder.feed(piece)] == whole(stream)
    decoder = SseDecoder()
    assert [event for piece in pieces for event in decoder.feed(piece)] == whole(stream)


@given(st.lists(FRAGMENTS.filter(lambda each: b"\r" not in each), max_size=40))
def test_lf_cr_and_crlf_are_the_same(fragments: list[bytes]) -> None:
    stream = b"".join(fragments)
    expected = whole(stream)
    assert whole(stream.replace(b"\n", b"\r\n")) == expected
    assert whole(stream.replace(b"\n", b"\r")) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [ServerEvent("a")]),
        (b"data:a\n\n", [ServerEvent("a")]),
        (b"data:  a\n\n", [ServerEvent(" a")]),
        (b"data: a\ndata: b\n\n", [ServerEvent("a\nb")]),
        (b"data\n\n", [ServerEvent("")]),
        (b"data\ndata\n\n", [ServerEvent("\n")]),
        (b"data: cut off\n", []),
        (b"event: e\n\ndata: a\n\n", [ServerEvent("a")]),
        (b"event: e\ndata: a\n\n", [ServerEvent("a", "e")]),
        (b"id: 1\ndata: a\n\ndata: b\n\n",
         [ServerEvent("a", id="1"), ServerEvent("b", id="1")]),
        (b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n",
         [ServerEvent("a", id="1"), ServerEvent("b", id="1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n",
         [ServerEvent("a", id="1"), ServerEvent("b")]),
        (b": ping\n\ndata: a\n: ping\n\n", [ServerEvent("a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [ServerEvent("a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xff\n\n", [ServerEvent("\ufffd")]),
        (b"Data: a\n\n", []),
    ],
)  # fmt: skip
def test_the_corners_of_the_standard(
    stream: bytes, expected: list[ServerEvent]
) -> None:
    for line_end in (b"\n", b"\r\n", b"\r"):
        each = stream.replace(b"\n", line_end)
        assert whole(each) == expected
        decoder = SseDecoder()
        by_byte = [event for byte in each for event in decoder.feed(bytes([byte]))]
        assert by_byte == expected


def test_an_event_is_dispatched_at_its_second_cr_without_waiting_for_a_lf() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\r") == [ServerEvent("a")]
    assert decoder.feed(b"\ndata: b\r\n\r") == [ServerEvent("b")]


def test_only_digits_are_a_retry_time() -> None:
    decoder = SseDecoder()
    decoder.feed(b"retry: 250\nretry: 1.5\nretry: -1\nretry: \xd9\xa3\nretry\n")
    decoder.feed(b"retry: " + b"9" * 5000 + b"\n")
    assert decoder.retry_ms == 250


def test_the_last_event_id_counts_from_the_end_of_its_event() -> None:
    decoder = SseDecoder()
    decoder.feed(b"id: 7\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "7"


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 2000, b"data: " + b"x" * 2000 + b"\n\n",
     b"data: x\n" * 200, b"data\n" * 400, b": " + b"x" * 2000, b"id: " + b"x" * 2000],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_beyond_the_limit_nothing_is_kept(stream: bytes, size: int) -> None:
    decoder = SseDecoder(max_event_bytes=1000)
    pieces = (stream[at : at + size] for at in range(0, len(stream), size))
    with pytest.raises(SseDecodeError):
        list(map(decoder.feed, pieces))
    with pytest.raises(SseDecodeError):
        decoder.feed(b"data: a\n\n")


def test_the_limit_counts_one_event_not_all_of_them() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    assert len(decoder.feed((b"data: " + b"x" * 90 + b"\n\n") * 50)) == 50


def test_events_before_the_one_that_is_too_large_are_not_lost() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    stream = b"data: a\n\ndata: " + b"x" * 200 + b"\n\n"
    assert decoder.feed(stream) == [ServerEvent("a")]
    with pytest.raises(SseDecodeError):
        decoder.feed(b"")


def test_a_long_line_in_small_pieces_costs_linear_time() -> None:
    decoder = SseDecoder(max_event_bytes=20_000_000)
    started = time.process_time()
    decoder.feed(b"data: ")
    for _ in range(100_000):
        decoder.feed(b"x" * 100)
    assert len(decoder.feed(b"\n\n")[0].data) == 10_000_000
    # Quadratic would be 500 GB of copying.
    assert time.process_time() - started < 10
