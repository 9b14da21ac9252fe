"""What a model's events mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from viva_server.errors import ResponderError
from viva_server.responders.completions import Completion


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(content: str | None, finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return event({"choices": [choice]})


DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes) -> tuple[str, str]:
    """Return the text, and how the reply ended: a reason or an error's code."""
    completion = Completion(max_event_bytes=10_000)
    text = "".join(map(completion.feed, pieces))
    try:
        return text, completion.close()
    except ResponderError as error:
        return text, error.code


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "upstream_error"),
        ("function_call", "upstream_error"),
        ("insufficient_system_resource", "upstream_error"),
    ],
)
def test_each_finish_reason_has_a_declared_meaning(finish: str, expected: str) -> None:
    assert read(delta("a"), delta(None, finish), DONE) == ("a", expected)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([delta("a"), DONE], ("a", "stop")),
        ([delta("a", "stop")], ("a", "stop")),
        ([delta("a")], ("a", "upstream_error")),
        ([], ("", "upstream_error")),
        ([DONE], ("", "upstream_empty")),
        ([delta("", "stop"), DONE], ("", "upstream_empty")),
        ([delta(None, "length"), DONE], ("", "upstream_empty")),
        ([delta(None, "content_filter"), DONE], ("", "content_filter")),
        ([delta("a"), delta("no", index=1), DONE], ("a", "stop")),
        ([delta("a") + DONE + delta("b")], ("a", "stop")),
        ([event({"choices": []}), delta("a"), event({"choices": None, "usage": {}}),
          DONE], ("a", "stop")),
        ([b"data:\n\n", delta("a"), DONE], ("a", "stop")),
        ([event({"choices": [{"delta": None}]}), delta("a"), DONE], ("a", "stop")),
        ([event({"choices": [{"delta": {"role": "assistant", "reasoning": "x"}}]}),
          delta("a"), DONE], ("a", "stop")),
    ],
)  # fmt: skip
def test_a_reply_is_whole_only_when_the_model_said_so(
    pieces: list[bytes], expected: tuple[str, str]
) -> None:
    assert read(*pieces) == expected
    assert read(b"".join(pieces)) == expected


@pytest.mark.parametrize(
    "broken",
    [
        event({"error": {"message": "x"}}),
        event({"error": {}}),
        event({"error": "x"}),
        event({"error": {"message": "\ud800"}}),
        event({"choices": [{"delta": {"content": 5}}]}),
        event({"choices": {}}),
        event(5),
        b"data: {\n\n",
        b'data: {"choices":[]} {"choices":[]}\n\n',
        b"data: " + b"[" * 9000 + b"\n\n",
        b'data: {"x":' + b'{"x":' * 1500 + b"\n\n",
        b"data: " + b"x" * 20_000 + b"\n\n",
        b"data: " + b"x" * 20_000,
    ],
)
def test_garbage_ends_the_reply_and_keeps_the_text_before_it(broken: bytes) -> None:
    expected = ("Olá", "upstream_error")
    assert read(delta("Olá"), broken, delta("no"), DONE) == expected
    assert read(delta("Olá") + broken + delta("no") + DONE) == expected


def test_the_oddities_of_other_servers_are_read() -> None:
    stream = b"\xef\xbb\xbf: OPENROUTER PROCESSING\n\nevent: x\nid: 1\nretry: 5\n"
    stream += b'data:{"choices":[{"delta":\ndata: {"content":"a\\u0000\xc3\xa7"}}]}\n\n'
    stream += DONE
    for text in (stream, stream.replace(b"\n", b"\r\n"), stream.replace(b"\n", b"\r")):
        assert read(text) == ("a\0ç", "stop")
        assert read(*(bytes([byte]) for byte in text)) == ("a\0ç", "stop")


def test_bytes_that_are_no_utf_8_become_replacement_characters() -> None:
    broken = delta("a\u00e7\u00e7").replace(b"\\u00e7\\u00e7", b"\xc3\xc3\xa7")
    assert read(delta("a"), broken, DONE) == ("aa\ufffdç", "stop")
    assert read(delta("a") + broken + DONE) == ("aa\ufffdç", "stop")


def test_half_a_surrogate_pair_is_text() -> None:
    assert read(delta("\ud83d"), delta("\ude00"), DONE) == ("\ud83d\ude00", "stop")


def test_no_error_says_what_the_server_said() -> None:
    completion = Completion()
    completion.feed(event({"error": {"message": "sk-secret", "code": "sk-secret"}}))
    with pytest.raises(ResponderError) as caught:
        completion.close()
    assert "sk-secret" not in f"{caught.value!r}{caught.value.code}"
