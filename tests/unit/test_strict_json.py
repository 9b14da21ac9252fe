"""Only what every JSON reader reads alike, and PostgreSQL can store, gets in."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.api.problems import Problem
from viva_server.api.wire import MAX_CONTAINERS, MAX_DEPTH, parse_json


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def refusal(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        parse_json(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b"  \n", "invalid_json"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"x"', "not_an_object"),
        (b"7", "not_an_object"),
        (b"{}x", "invalid_json"),
        (b"{}{}", "invalid_json"),
        (b'{"a":1,}', "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":1} // x', "invalid_json"),
        (b'{"a":01}', "invalid_json"),
        (b'{"a":+1}', "invalid_json"),
        (b'{"a":.5}', "invalid_json"),
        (b'{"a":0x1}', "invalid_json"),
        (b'{"a":"\n"}', "invalid_json"),
        (b'{"a":"\x00"}', "invalid_json"),
        (b'{"a":"\\x41"}', "invalid_json"),
        (b'{"a":"\\u12"}', "invalid_json"),
        (b'{"a":"', "invalid_json"),
        (b'{"a":"\\', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":Infinity}', "invalid_json"),
        (b'{"a":-Infinity}', "invalid_json"),
        (b'{"a":1e400}', "invalid_number"),
        (b'{"a":-1e400}', "invalid_number"),
        (b'{"a":' + b"9" * 5000 + b"}", "invalid_number"),
        (b'{"a":1,"a":2}', "duplicate_key"),
        (b'{"a":[{"b":1,"\\u0062":2}]}', "duplicate_key"),
        (b'{"a":"\\u0000"}', "invalid_text"),
        (b'{"\\u0000":1}', "invalid_text"),
        (b'{"a":"\\ud800"}', "invalid_text"),
        (b'{"a":"\\uDC00"}', "invalid_text"),
        (b'{"a":"\\ude00\\ud83d"}', "invalid_text"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xc0\x80"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        ('{"a":1}'.encode("utf-16"), "invalid_utf8"),
        ('{"a":1}'.encode("utf-16-le"), "invalid_json"),
        ('{"a":1}'.encode("utf-8-sig"), "invalid_json"),
        (nested(MAX_DEPTH + 1), "too_deep"),
        (nested(200_000), "too_deep"),
        (b'{"a":' * 200_000, "too_deep"),
        (b"[" * 200_000, "too_deep"),
        (b'{"a":[' + b"[]," * 10_000 + b"0]}", "too_many_values"),
        (b'{"a":[' + b"{}," * 300_000 + b"0]}", "too_many_values"),
        (b'{"a":[' + b"]" * 200_000, "invalid_json"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_body_is_refused_with_its_code(body: bytes, code: str) -> None:
    assert refusal(body).code == code


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": 1}\r\n', {"a": 1}),
        (b'{"a":[1,-0.5,1e3,null,true]}', {"a": [1, -0.5, 1000.0, None, True]}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":"\\\\u0000 \\\\ud800"}', {"a": "\\u0000 \\ud800"}),
        ('{"a":"\u2028\u200b\u202e\x7f"}'.encode(), {"a": "\u2028\u200b\u202e\x7f"}),
        (b'{"a":"\\u001b[31m"}', {"a": "\x1b[31m"}),
        (b'{"a":{"b":1},"b":{"a":1}}', {"a": {"b": 1}, "b": {"a": 1}}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_good_body_is_read_exactly(body: bytes, value: dict[str, Any]) -> None:
    assert parse_json(body) == value


def test_the_deepest_nesting_that_is_taken_is_the_limit() -> None:
    assert parse_json(nested(MAX_DEPTH))


def test_as_many_arrays_and_objects_as_the_limit_are_taken_and_no_more() -> None:
    within: list[object] = [[]] * (MAX_CONTAINERS - 2)

    assert parse_json(json.dumps({"a": within}).encode()) == {"a": within}
    over = json.dumps({"a": [*within, {}]}).encode()
    assert refusal(over).code == "too_many_values"


def test_brackets_in_texts_and_side_by_side_are_no_depth() -> None:
    brackets = "[{" * 500 + '"\\' + "[" * 500
    body = {"a": brackets, "b": [[] for _ in range(500)], brackets: [{}] * 500}

    assert parse_json(json.dumps(body).encode()) == body


def test_a_refusal_points_at_the_text() -> None:
    error = refusal(b'{"a/b":[1,{"c~":"\\u0000"}]}')

    assert error.errors[0][0] == "/a~1b/1/c~0"


def test_a_refusal_repeats_little_of_the_body() -> None:
    error = refusal(json.dumps({"x" * 9999: "\0"}).encode())

    assert len(str(error.errors)) < 200


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4), st.booleans())
def test_what_can_be_stored_is_read_as_it_was_written(
    value: dict[str, Any], ascii_only: bool
) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=300) | st.text('{}[]",:\\u0d8ae1-. ').map(str.encode))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    with suppress(Problem):
        parse_json(body)
