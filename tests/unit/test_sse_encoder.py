"""Our stream's bytes, exactly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server import sse
from viva_server.responders.sse_decoder import ServerEvent, SseDecoder

MESSAGE = "0198c0de-1111-7222-8333-444455556666"
STORABLE_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def test_accepted_has_the_id_the_retry_time_and_one_line_of_data() -> None:
    event = sse.accepted_event(
        session_id="s", message_id=MESSAGE, user_message_id="u", offset=0
    )
    assert (
        event
        == (
            f"id: {MESSAGE}:0\nretry: 1000\n"
            f'data: {{"accepted":true,"session_id":"s","message_id":"{MESSAGE}",'
            '"user_message_id":"u","offset":0}\n\n'
        ).encode()
    )


def test_a_resumed_stream_says_so_and_where_it_goes_on() -> None:
    event = sse.accepted_event(
        session_id="s",
        message_id=MESSAGE,
        user_message_id="u",
        offset=17,
        resumed=True,
    )
    assert event.startswith(f"id: {MESSAGE}:17\nretry: 1000\n".encode())
    assert event.endswith(b'"offset":17,"resumed":true}\n\n')


def test_content_is_utf8_and_not_escaped() -> None:
    assert (
        sse.content_event(MESSAGE, 5, "Olá, ")
        == f'id: {MESSAGE}:5\ndata: {{"content":"Olá, "}}\n\n'.encode()
    )


def test_done_says_what_the_stored_row_says() -> None:
    event = sse.done_event(
        session_id="s",
        message_id=MESSAGE,
        status="complete",
        finish_reason="stop",
        chars=1234,
        sha256="ab",
        message_count=2,
    )
    assert (
        event
        == (
            f'id: {MESSAGE}:end\ndata: {{"done":true,"session_id":"s",'
            f'"message_id":"{MESSAGE}","status":"complete","finish_reason":"stop",'
            '"chars":1234,"sha256":"ab","message_count":2}\n\n'
        ).encode()
    )


def test_error_ends_the_stream() -> None:
    event = sse.error_event(
        error="não deu", code="upstream_timeout", retryable=True, session_id="s",
        message_id=MESSAGE,
    )  # fmt: skip
    assert (
        event
        == (
            f'id: {MESSAGE}:end\ndata: {{"error":"não deu","code":"upstream_timeout",'
            f'"retryable":true,"session_id":"s","message_id":"{MESSAGE}"}}\n\n'
        ).encode()
    )


def test_keep_alive_is_a_comment_that_ends_no_event() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n" + sse.KEEP_ALIVE) == []
    assert decoder.feed(b"\n") == [ServerEvent("a")]


@given(STORABLE_TEXT)
def test_no_text_can_end_its_line_for_any_client(text: str) -> None:
    event = sse.content_event(MESSAGE, len(text), text).decode()
    # str.splitlines knows more line ends than the standard, and clients use it.
    assert len(event.splitlines()) == 3
    assert json.loads(event.splitlines()[1].removeprefix("data: ")) == {"content": text}


@given(st.lists(STORABLE_TEXT), st.integers(1, 40))
def test_what_is_encoded_is_decoded(texts: list[str], size: int) -> None:
    stream = b"".join(
        sse.content_event(MESSAGE, index, text) + sse.KEEP_ALIVE
        for index, text in enumerate(texts)
    )
    decoder = SseDecoder()
    events = [
        event
        for start in range(0, len(stream), size)
        for event in decoder.feed(stream[start : start + size])
    ]
    assert [json.loads(event.data)["content"] for event in events] == texts
    assert [sse.parse_event_id(event.id) for event in events] == [
        (MESSAGE, index) for index in range(len(texts))
    ]


def test_an_event_id_is_read_back() -> None:
    assert sse.parse_event_id(f"{MESSAGE}:0") == (MESSAGE, 0)
    assert sse.parse_event_id(f"{MESSAGE}:123") == (MESSAGE, 123)
    assert sse.parse_event_id(f"{MESSAGE}:end") == (MESSAGE, sse.END)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123",
        MESSAGE,
        f"{MESSAGE}:",
        f"{MESSAGE}:-1",
        f"{MESSAGE}:+1",
        f"{MESSAGE}:01",
        f"{MESSAGE}:1e9",
        f"{MESSAGE}:1_0",
        f"{MESSAGE}: 1",
        f"{MESSAGE}:1\n",
        f"{MESSAGE}:٣",
        f"{MESSAGE}:{10**20}",
        f"{MESSAGE}:END",
        f"{MESSAGE}:1:2",
        f"{MESSAGE.upper()}:1",
        f"{{{MESSAGE}}}:1",
        f"{MESSAGE.replace('-', '')}:1",
        "not-a-uuid:1",
    ],
)
def test_an_impossible_event_id_is_nothing(text: str) -> None:
    assert sse.parse_event_id(text) is None
