"""What a model's events mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.recorded import recorded_cases
from viva_server.errors import ResponderError
from viva_server.responders.completion import Completion, reason_of

CUT = ResponderError("cut")


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def choice(content: object = None, finish: object = None, **members: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    return event({"choices": [{"delta": delta, "finish_reason": finish, **members}]})


DONE = b"data: [DONE]\n\n"
STOP = choice(None, "stop")


def read(*pieces: bytes, **settings: Any) -> tuple[str, str]:
    """Return the text, and how the reply ended: a reason or an error's code."""
    completion = Completion(**{"max_event_bytes": 10_000, **settings})
    text = "".join(map(completion.feed, pieces))
    text += completion.end(CUT)
    try:
        return text, completion.close()
    except ResponderError as error:
        return text, error.code


def read_each_way(stream: bytes, **settings: Any) -> tuple[str, str]:
    """Read a stream at once and byte by byte, which has to be the same."""
    found = read(stream, **settings)
    assert read(*(bytes([byte]) for byte in stream), **settings) == found
    return found


@pytest.mark.parametrize("case", recorded_cases(), ids=lambda case: case.name)
def test_a_body_is_the_same_wherever_it_is_cut(case: Any) -> None:
    stream = case.body
    if len(stream) < 5000:
        whole = read(stream, max_event_bytes=10_000)
        for size in (1, 2, 7, 64):
            pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
            assert read(*pieces) == whole


REASONS: dict[str, list[Any]] = {
    "stop": [
        *("stop", "STOP", " stop ", "end_turn", "eos", "tool_calls", "function_call"),
        *("unknown", "COMPLETE", True, False, 0, 7, 1.5, [], ["x"], {"type": "x"}),
    ],
    "length": ["length", "Length", "MAX_TOKENS", "max_output_tokens", "max_new_tokens"],
    "content_filter": ["content_filter", "Content_Filter", "SAFETY", "RECITATION"],
    "upstream_error": [
        *("error", "ERROR", "abort", "network_error", "insufficient_system_resource"),
    ],
    "cut": ["", "null", "None", "NULL", None],
}


@pytest.mark.parametrize(
    ("finish", "expected"),
    [(word, meaning) for meaning, words in REASONS.items() for word in words],
)
def test_each_finish_reason_has_a_declared_meaning(finish: Any, expected: str) -> None:
    assert read_each_way(choice("a") + choice(None, finish)) == ("a", expected)
    assert read_each_way(choice("a", finish)) == ("a", expected)
    if expected == "cut":
        assert read_each_way(choice("a") + choice(None, finish) + DONE) == ("a", "stop")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (choice("a") + DONE, ("a", "stop")),
        (choice("a") + DONE[:-1], ("a", "stop")),
        (choice("a") + DONE[:-2], ("a", "stop")),
        (choice("a") + b"data:[DONE]\n\n", ("a", "stop")),
        (choice("a") + b"data:   [DONE]  \n\n", ("a", "stop")),
        (choice("a") + b'data: "[DONE]"\n\n', ("a", "stop")),
        (choice("a") + b"data: '[done]'\n\n", ("a", "stop")),
        (choice("a") + b"data: [Done]\r\n\r\n", ("a", "stop")),
        (choice("a") + b"event: done\ndata: [DONE]\n\n", ("a", "stop")),
        (choice("a") + b"data: DONE\n\n", ("a", "cut")),
        (choice("a") + b"data: [DONE\n\n", ("a", "cut")),
        (choice("a"), ("a", "cut")),
        (choice("a", "stop"), ("a", "stop")),
        (choice("a") + STOP, ("a", "stop")),
        (choice("a") + STOP + event({"choices": [], "usage": {}}), ("a", "stop")),
        (choice("a") + STOP + b'data: {"choices":[],"usa', ("a", "stop")),
        (choice("a", "stop") + choice("b", "stop"), ("ab", "cut")),
        (choice("a", "stop") + choice("b", "stop") + DONE, ("ab", "stop")),
        (choice("a", "stop") + choice("b") + STOP, ("ab", "cut")),
        (choice("a", "stop") + choice("", "stop"), ("a", "stop")),
        (choice("a", "stop") + choice("b", "length") + DONE, ("ab", "length")),
        (b"", ("", "cut")),
        (b"\n\n\n", ("", "cut")),
        (DONE, ("", "upstream_empty")),
        (choice("", "stop") + DONE, ("", "upstream_empty")),
        (choice(None, "tool_calls") + DONE, ("", "upstream_empty")),
        (choice(None, "length") + DONE, ("", "length")),
        (choice(None, "content_filter") + DONE, ("", "content_filter")),
        (choice("a") + DONE + choice("b"), ("a", "stop")),
        (choice("a")[:-1], ("a", "cut")),
        (choice("a", "stop")[:-2], ("a", "stop")),
        (choice("a") + b'data: {"choices":[{"delta":{"cont', ("a", "cut")),
    ],
)
def test_a_reply_is_whole_only_when_the_model_said_so(
    stream: bytes, expected: tuple[str, str]
) -> None:
    assert read_each_way(stream) == expected


ODD: Any = [None, {}, 5, "x", [None], [5], [[]], []]
NO_TEXT: Any = ["", None, True, False, {}, {"text": "no"}, [], [{}], ["no"]]


@pytest.mark.parametrize(
    "piece",
    [
        *({"choices": value} for value in ODD),
        *({"choices": [{"delta": value}]} for value in ODD),
        *({"choices": [{"index": i, "delta": {"content": "no"}}]} for i in (1, "1")),
        *({"choices": [{"delta": {"content": value}}]} for value in NO_TEXT),
        {"choices": [{"delta": {"role": 1, "tool_calls": 5, "reasoning": "no"}}]},
        {"choices": [{"delta": {"reasoning_content": "no", "content": ""}}]},
        {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": "no"}]}}]},
        {"choices": [{"delta": {"content": [{"type": "text", "text": None}]}}]},
        {"choices": [{"delta": {"content": [{"type": "reference", "text": "no"}]}}]},
        {"choices": [{"text": "no"}]},
        {"choices": [{"logprobs": [[[]]], "delta": {"images": [{"x": "y"}]}}]},
        {"error": None}, {"error": False}, {"error": ""}, {"error": {}}, {"error": []},
        {"choices": [{"error": None}]}, {"choices": [{"error": {}, "delta": {}}]},
        {"usage": "x", "id": 5, "model": None, "object": []},
        {"type": "ping"},
        None, 5, "ping", [], True, [{"choices": []}],
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_nobody_needs_is_passed_over(piece: Any) -> None:
    stream = choice("a") + event(piece) + choice("b") + STOP + DONE
    assert read_each_way(stream) == ("ab", "stop")


@pytest.mark.parametrize(
    "piece",
    [
        b": comment\n\n", b":\n", b"\n", b"\r\n", b"data:\n\n", b"data\n\n", b"x\n",
        b"event: ping\ndata: {}\n\n", b"event: ping\ndata: {broken\n\n",
        b"event: ping\n\n", b"event: keep-alive\ndata: 12:30\n\n", b"data: hello\n\n",
        b"data: 2025-11-05T10:00:00Z\n\n", b"id: 5\n\n", b"retry: 5\n\n", b"error\n\n",
        b'data: {"x": NaN, "y": -Infinity, "z": Infinity}\n\n', b"data: NaN\n\n",
        b'data: {"n": ' + b"9" * 5000 + b"}\n\n", b'data: {"n": 1e999}\n\n',
    ],
)  # fmt: skip
def test_pings_and_other_noise_are_passed_over(piece: bytes) -> None:
    stream = choice("a") + piece + choice("b") + STOP + DONE
    assert read_each_way(stream) == ("ab", "stop")
    assert read_each_way(piece + stream) == ("ab", "stop")


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": 5}, "5"),
        ({"content": 1.50}, "1.5"),
        ({"content": -7}, "-7"),
        ({"content": [{"type": "text", "text": t} for t in "xy"]}, "xy"),
        ({"content": [{"type": "thinking"}, {"type": "text", "text": "x"}, None]}, "x"),
        ({"refusal": "x"}, "x"),
        ({"content": None, "refusal": "x"}, "x"),
        ({"content": "x", "refusal": None, "reasoning_content": None}, "x"),
        ({"content": "x", "refusal": "", "reasoning_content": ""}, "x"),
        ({"content": "x", "reasoning": "no"}, "x"),
        ({"content": "x", "role": "assistant", "tool_calls": None}, "x"),
        ({"content": "  x\n"}, "  x\n"),
    ],
)  # fmt: skip
def test_text_comes_in_many_forms(delta: Any, text: str) -> None:
    for index in ({}, {"index": None}, {"index": 0}, {"index": "0"}):
        stream = event({"choices": [{"delta": delta, **index}]})
        assert read_each_way(stream + STOP + DONE) == (text, "stop")


def test_a_number_is_the_text_that_was_sent() -> None:
    number = b'data: {"choices":[{"delta":{"content":1.50}}]}\n\n'
    assert read_each_way(number + DONE) == ("1.50", "stop")


def test_of_several_choices_the_first_counts() -> None:
    two = {"choices": [{"index": 1, "delta": {"content": "no"}},
                       {"index": 0, "delta": {"content": "a"}}]}  # fmt: skip
    unnumbered = {
        "choices": [{"delta": {"content": "b"}}, {"delta": {"content": "no"}}]
    }
    other_error = {"choices": [{"index": 1, "error": "x", "finish_reason": "error"}]}
    stream = event(two) + event(unnumbered) + event(other_error) + DONE
    assert read_each_way(stream) == ("ab", "stop")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (["Olá mundo"], "Olá mundo"),
        (["Olá ", "Olá mundo"], "Olá mundo"),
        (["Olá ", "mundo"], "Olá mundo"),
        ([5], "5"),
        ([[{"type": "text", "text": "x"}]], "x"),
        (["<think>no</think>\nx"], "x"),
    ],
)
def test_a_message_is_the_text_where_no_delta_has_any(
    messages: list[Any], text: str
) -> None:
    told = [{"message": {"role": "assistant", "content": each}} for each in messages]
    stream = b"".join(event({"choices": [each]}) for each in told) + STOP
    assert read_each_way(stream) == (text, "stop")
    assert read_each_way(choice("a") + stream + DONE) == ("a", "stop")


def whole(content: object, finish: object = "stop", **members: Any) -> bytes:
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return json.dumps({"choices": choices, **members}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (whole("Olá"), ("Olá", "stop")),
        (b"\xef\xbb\xbf \r\n" + whole("Olá") + b"\n", ("Olá", "stop")),
        (whole("Olá", "length"), ("Olá", "length")),
        (whole("Olá", "content_filter"), ("Olá", "content_filter")),
        (whole("Olá", None), ("Olá", "cut")),
        (whole("Olá", "error"), ("Olá", "upstream_error")),
        (whole("Olá", usage={"x": 1}), ("Olá", "stop")),
        (whole("Olá", error={"code": 5}), ("Olá", "upstream_error")),
        (whole("Olá")[:-5], ("", "cut")),
        (b'{"error": {"message": "x"}}', ("", "upstream_error")),
        (b'{"error": "x"}', ("", "upstream_error")),
        (b'{"error": {"code": "insufficient_quota"}}', ("", "insufficient_quota")),
        (b"{}", ("", "cut")),
        (b"{", ("", "cut")),
        (b"[]", ("", "cut")),
        (b'{"x":' * 1500, ("", "cut")),
        (b"<!doctype html><html>", ("", "upstream_refused")),
        (b"\n <html>", ("", "upstream_refused")),
        (b"Hello there", ("", "cut")),
        (b"{" + b" " * 20_000, ("", "upstream_error")),
    ],
)
def test_a_body_that_is_no_stream_is_read_too(
    body: bytes, expected: tuple[str, str]
) -> None:
    assert read_each_way(body) == expected


@pytest.mark.parametrize(
    "broken",
    [
        event({"error": {"message": "x"}}),
        event({"error": "x"}),
        event({"error": 500}),
        event({"error": True}),
        event({"error": ["x"]}),
        event({"error": {"message": "\ud800"}}),
        event({"choices": [{"error": {"code": 1}, "finish_reason": "stop"}]}),
        event({"choices": [{"delta": {}, "error": "x"}]}),
        b"event: error\ndata: {}\n\n",
        b"event: error\ndata: [DONE]\n\n",
        b"event: error\ndata: boom\n\n",
        b"event: error\n\n",
        b"event:error\ndata:\n\n",
        b"error: x\n\n",
        b"error:{}\n\n",
        b'error: {"error":{"message":"x"}}\r\n\r\n',
        b"data: {\n\n",
        b"data: data: {}\n\n",
        b"event: message\ndata: {\n\n",
        b'data: {"choices":[]} {"choices":[]}\n\n',
        b'data: {"x":' + b'{"x":' * 1500 + b"\n\n",
        b"data: " + b"x" * 20_000 + b"\n\n",
        b"data: " + b"x" * 20_000,
    ],
)
def test_an_error_or_garbage_ends_the_reply_and_keeps_the_text_before_it(
    broken: bytes,
) -> None:
    expected = ("Olá", "upstream_error")
    for before in (choice("Olá"), choice("Olá", "stop")):
        assert read(before, broken, choice("no"), STOP, DONE) == expected
        assert read_each_way(before + broken + choice("no") + STOP + DONE) == expected


def test_text_beside_an_error_counts() -> None:
    both = {"choices": [{"delta": {"content": "b"}}], "error": {"message": "x"}}
    assert read_each_way(choice("a") + event(both) + DONE) == ("ab", "upstream_error")


THINKING = "<think>\nHmm, <b>oi</b> </thin k>\n</think>\n\n"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([THINKING + "Olá"], ("Olá", "stop")),
        (["\n " + THINKING + "Olá <think>"], ("Olá <think>", "stop")),
        ([*(THINKING + "Olá ")], ("Olá ", "stop")),
        (["<think></think>Olá"], ("Olá", "stop")),
        ([" Olá <think>não</think>"], (" Olá <think>não</think>", "stop")),
        ([" ", "<", "thi"], (" <thi", "stop")),
        ([" ", "<b>Olá"], (" <b>Olá", "stop")),
        (["<thinking>Olá"], ("<thinking>Olá", "stop")),
        ([" "], (" ", "stop")),
        ([" " * 5000, "<think>x"], (" " * 5000 + "<think>x", "stop")),
        (["<think>never"], ("", "upstream_empty")),
        (["<think>never</thin"], ("", "upstream_empty")),
        ([THINKING], ("", "upstream_empty")),
    ],
)
def test_leading_reasoning_in_tags_is_no_text(
    texts: list[str], expected: tuple[str, str]
) -> None:
    stream = b"".join(choice(text) for text in texts)
    assert read_each_way(stream + STOP + DONE) == expected
    assert read_each_way(stream + STOP) == expected


@pytest.mark.parametrize(
    ("texts", "end", "expected"),
    [
        (["Hmm\n</think>\n\nOlá"], STOP, ("Olá", "stop")),
        ([*"Hmm</think> Olá </think>"], DONE, ("Olá </think>", "stop")),
        (["<think>Hmm</think>Olá"], STOP, ("Olá", "stop")),
        (["  Olá", " mundo"], STOP, ("  Olá mundo", "stop")),
        (["Olá"], DONE, ("Olá", "stop")),
        (["Hmm"], choice(None, "length"), ("", "length")),
        (["Hmm"], b"", ("", "cut")),
        (["Hmm"], event({"error": "x"}), ("", "upstream_error")),
        (["<think>Hmm"], STOP, ("", "upstream_empty")),
        ([], whole("Hmm</think>Olá")[:0], ("", "cut")),
    ],
)
def test_a_template_that_opens_without_the_tag_is_understood(
    texts: list[str], end: bytes, expected: tuple[str, str]
) -> None:
    stream = b"".join(choice(text) for text in texts) + end
    assert read_each_way(stream, starts_thinking=True) == expected


def test_a_whole_body_of_such_a_template_is_understood_too() -> None:
    assert read(whole("Hmm</think>Olá"), starts_thinking=True) == ("Olá", "stop")
    assert read(whole("Olá"), starts_thinking=True) == ("Olá", "stop")


def test_reasoning_without_end_takes_no_memory() -> None:
    completion = Completion(starts_thinking=True)
    for _ in range(300):
        completion.feed(choice("x" * 10_000))
    assert completion.feed(choice("</think>Olá")) == "Olá"


def test_reasoning_behind_a_finish_reason_is_no_text_behind_it() -> None:
    stream = choice("<think>a", "stop") + choice("b</think>", "stop")
    assert read_each_way(stream + choice("Olá", "stop")) == ("Olá", "cut")
    assert read_each_way(choice("<think>a</think>Olá") + STOP) == ("Olá", "stop")


def test_the_oddities_of_other_servers_are_read() -> None:
    stream = b"\xef\xbb\xbf: OPENROUTER PROCESSING\n\nevent: x\nid: 1\nretry: 5\n"
    stream += b'data:{"choices":[{"delta":\ndata: {"content":"a\\u0000\xc3\xa7"}}]}\n\n'
    stream += DONE
    for text in (stream, stream.replace(b"\n", b"\r\n"), stream.replace(b"\n", b"\r")):
        assert read_each_way(text) == ("a\0ç", "stop")


def test_bytes_that_are_no_utf_8_become_replacement_characters() -> None:
    broken = choice("a\u00e7\u00e7").replace(b"\\u00e7\\u00e7", b"\xc3\xc3\xa7")
    assert read(choice("a"), broken, DONE) == ("aa\ufffdç", "stop")
    assert read(choice("a") + broken + DONE) == ("aa\ufffdç", "stop")


def test_half_a_surrogate_pair_is_text() -> None:
    assert read(choice("\ud83d"), choice("\ude00"), DONE) == ("\ud83d\ude00", "stop")


def test_a_picture_of_megabytes_is_read_past() -> None:
    picture = event({"choices": [{"delta": {"images": ["A" * 5_000_000]}}]})
    stream = choice("a") + picture + choice("b") + DONE
    pieces = [stream[at : at + 65_536] for at in range(0, len(stream), 65_536)]
    completion = Completion()
    assert "".join(map(completion.feed, pieces)) == "ab"
    assert completion.close() == "stop"


def usage_of(*pieces: bytes) -> Any:
    completion = Completion()
    for piece in pieces:
        completion.feed(piece)
    return completion.usage


def test_the_count_of_tokens_is_kept_as_numbers() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 0,
        "total_time": 0.5,
        "prompt_tokens_details": {"cached_tokens": 4, "x": {"y": 1}, "z": "w"},
        "\0": 5,
        "a word": 7,
        "cost": "much",
        "list": [1],
        "none": None,
    }
    kept = {
        "prompt_tokens": 10,
        "completion_tokens": 0,
        "total_time": 0.5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert usage_of(event({"choices": [], "usage": usage})) == kept
    assert usage_of(event({"x_groq": {"usage": {"a": 1}}})) == {"a": 1}
    older = event({"usage": {"a": 1}, "choices": []})
    assert usage_of(older, event({"usage": {"a": 2}})) == {"a": 2}
    assert usage_of(choice("a"), event({"usage": None}), event({"usage": "x"})) is None
    assert usage_of(b'data: {"usage": {"a": NaN, "b": 1e999, "c": 1}}\n\n') == {"c": 1}


@pytest.mark.parametrize(
    ("error", "reason", "is_quota"),
    [
        ({"error": {"message": "x", "type": "insufficient_quota"}}, "x", True),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, "x", True),
        ({"error": {"message": "insufficient_quota"}}, "insufficient_quota", False),
        ({"error": "x"}, "x", False),
        ([{"error": {"message": "x", "code": 400}}], "x", False),
        ({"message": "x"}, "x", False),
        ({"detail": "x"}, "x", False),
        ({"detail": [{"msg": "x"}]}, '[{"msg": "x"}]', False),
        ({"error": {"code": "invalid_api_key"}}, "invalid_api_key", False),
        ("x", "x", False),
        (5, "", False),
        (None, "", False),
    ],
)  # fmt: skip
def test_a_servers_reason_is_found_in_each_form(
    error: object, reason: str, is_quota: bool
) -> None:
    assert reason_of(error) == (reason, is_quota)


def test_what_the_server_said_is_no_part_of_the_message() -> None:
    completion = Completion()
    completion.feed(event({"error": {"message": "their words", "code": "their words"}}))
    with pytest.raises(ResponderError) as caught:
        completion.close()
    assert "their words" not in f"{caught.value!r}{caught.value.code}"
    assert caught.value.detail == "their words"
