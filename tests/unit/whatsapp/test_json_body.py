"""Every JSON object is accepted and becomes storable; nothing else is accepted."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.whatsapp.events.json_values import (
    MAX_DEPTH,
    TOO_DEEP,
    NotJsonObjectError,
    decode_object,
    is_heavy,
)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"5",
        b"[]",
        b'"x"',
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\x00"}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":' + b"[" * 200_000,
        b'{"a":' + b"[" * 5000 + b'"' + b"]" * 5000 + b"}",
        '{"a":1}'.encode("utf-16"),
        b"a=1&b=2",
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJsonObjectError):
        decode_object(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"a":"\\u0000x"}', {"a": "\ufffdx"}),
        (b'{"a\\u0000":"\\ud800"}', {"a\ufffd": "\ufffd"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'\xef\xbb\xbf{"a":"\xc3\xa9"}', {"a": "é"}),
        (b'{"a":1e999}', {"a": "(long number)"}),
        (b'{"a":' + b"9" * 5000 + b"}", {"a": "(long number)"}),
        (b'{"a":[-0,1.5,true,null]}', {"a": [0, 1.5, True, None]}),
    ],
)
def test_odd_json_is_made_storable(raw: bytes, value: object) -> None:
    assert decode_object(raw) == value


@pytest.mark.parametrize("depth", [500, 5000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x]":', b"}")])
def test_what_is_nested_deep_is_cut_and_the_rest_is_kept(
    depth: int, opening: bytes, closing: bytes
) -> None:
    deep = opening * depth + b"1" + closing * depth
    value = decode_object(b'{"event":"call","a":' + deep + b',"b":"[{"}')
    assert (value["event"], value["b"]) == ("call", "[{")
    assert TOO_DEEP in json.dumps(value)
    assert _depth(value) <= MAX_DEPTH


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_json_without_oddities_is_decoded_as_python_does(value: dict[str, Any]) -> None:
    raw = json.dumps(value).replace("Infinity", "1")
    if "\\u0000" not in raw:
        assert decode_object(raw.encode()) == json.loads(raw)


@given(st.binary(max_size=50))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with contextlib.suppress(NotJsonObjectError):
        decode_object(raw)


@pytest.mark.parametrize(
    ("raw", "heavy"),
    [
        (b'{"a":1}', False),
        (b"[" * 4096, False),
        (b"[" * 4097, True),
        (b'"' + b"a" * 250_000 + b'"', False),
        (b'"' + b"a" * 270_000 + b'"', True),
        (b"1," * 19_000, False),
        (b"1," * 21_000, True),
    ],
)
def test_a_body_is_heavy_by_its_values_and_not_only_by_its_bytes(
    raw: bytes, heavy: bool
) -> None:
    assert is_heavy(raw) == heavy


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_as_deep_as_is_kept_stays_as_it_is(
    pair: tuple[str, str],
) -> None:
    wide = ",".join(["[]"] * 100)
    for depth in (MAX_DEPTH - 3, MAX_DEPTH + 20):
        text = pair[0] * depth + "1" + pair[1] * depth
        raw = f'{{"wide":[{wide}],"deep":{text}}}'.encode()
        is_same = decode_object(raw) == json.loads(raw)
        assert is_same == (depth < MAX_DEPTH)
