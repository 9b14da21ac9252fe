"""A query is read, clamped, or refused with a pointer at what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from viva_server.api import chat, sessions
from viva_server.api.problems import Problem

ID = "0190a5c4-7d3e-7b1a-9f00-00000000abcd"


def refusal(call: Any, *args: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1", 1), ("250", 250), ("251", 250), ("0", 1), ("-1", 1), ("0007", 7),
     ("9" * 5000, 250), ("-" + "9" * 5000, 1), ("0" * 50 + "9", 9)],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_a_limit_is_clamped(text: str, limit: int) -> None:
    assert sessions.read_snapshot_query([("limit", text)]).limit == limit


def test_a_snapshot_query_has_defaults() -> None:
    found = sessions.read_snapshot_query([("unknown", "x")])

    assert (found.session_id, found.limit, found.before) == (None, 120, None)


def test_a_snapshot_query_is_read() -> None:
    pairs = [("before", "99999999999999999999"), ("session_id", ID)]
    found = sessions.read_snapshot_query(pairs)

    assert (found.session_id, found.before) == (ID, sessions.MAX_SEQ)


@pytest.mark.parametrize(
    ("pairs", "pointer"),
    [
        ([("limit", text)], "/query/limit")
        for text in ("", "abc", "1e9", "1.5", "+1", " 1", "1 ", "\u0661", "0x1", "1_0")
    ]
    + [
        ([("before", "0")], "/query/before"),
        ([("before", "-1")], "/query/before"),
        ([("before", "x")], "/query/before"),
        ([("limit", "1"), ("limit", "1")], "/query/limit"),
        ([("x", "1"), ("x", "2")], "/query/x"),
    ],
)
def test_garbage_in_a_query_is_refused_with_its_pointer(
    pairs: list[tuple[str, str]], pointer: str
) -> None:
    error = refusal(sessions.read_snapshot_query, pairs)

    assert (error.status, error.errors[0][0]) == (400, pointer)


@pytest.mark.parametrize(
    ("pairs", "page", "size"),
    [
        ([], 1, 20),
        ([("page", "0"), ("page_size", "0")], 1, 1),
        ([("page", "3"), ("page_size", "101")], 3, 100),
        ([("page", "9" * 30)], sessions.MAX_PAGE, 20),
    ],
)
def test_a_page_is_clamped(pairs: list[tuple[str, str]], page: int, size: int) -> None:
    found = sessions.read_sessions_query(pairs)

    assert (found.page, found.page_size) == (page, size)
    assert found.offset < 2**31


@pytest.mark.parametrize("key", ["a", "~" * 255, "a b", '"8e03978e"'])
def test_a_printable_key_is_taken(key: str) -> None:
    assert chat.read_idempotency_key([key]) == key
    assert chat.read_idempotency_key([]) is None


@pytest.mark.parametrize(
    "values",
    [[""], ["a" * 256], ["é"], ["a\tb"], ["a\r\nb"], ["\x7f"], ["\udce9"], ["a", "a"]],
)
def test_another_key_is_refused(values: list[str]) -> None:
    error = refusal(chat.read_idempotency_key, values)

    assert (error.status, error.code) == (400, "bad_idempotency_key")
    assert error.errors[0][0] == "/headers/Idempotency-Key"
