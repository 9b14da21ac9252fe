"""Whatever becomes of a body, it gives a normal form that can be stored."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.whatsapp.samples import NOW, SAMPLES, tail_of
from viva_server.whatsapp.events.table import EVENTS, GO_KINDS, OTHER_KINDS
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery

NAMES = [event.name for event in EVENTS] + list(GO_KINDS) + list(OTHER_KINDS)
DATA: list[Any] = [None, [], {}, "x", 5, True, [None], ["x"], [[]], [{}], {"key": None}]

KIND_WORDS = """
    text image video audio document sticker location contact reaction reaction_removed
    button list poll poll_vote edit delete status call presence groups chats contacts
    labels connection history history_done batch empty system
"""
KINDS = frozenset(KIND_WORDS.split())


def deep(opening: Any) -> Any:
    value: Any = "x"
    for _ in range(150):
        value = opening(value)
    return value


STRANGE_TEXTS = [
    json.dumps(value)
    for value in [
        *DATA,
        "",
        "\x00",
        "\ud800",
        "5511988887777:12",
        "@",
        "x" * 5000,
        -1,
        2**70,
        1e300,
        float("inf"),
        {"low": "x", "high": None},
        {"0": 1, "1": 2, "2": 3, "3": 4},
        {"type": "Buffer", "data": "x"},
        deep(lambda value: [value]),
        deep(lambda value: {"message": value}),
        deep(lambda value: {"editedMessage": {"message": {"protocolMessage": value}}}),
        deep(lambda value: {"protocolMessage": {"editedMessage": value}}),
    ]
]
# Texts, so that each example has values of its own to change.
STRANGE = st.sampled_from(STRANGE_TEXTS).map(json.loads)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if len(path) > 12:
        return [path]
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    return [path] + [p for name, v in items for p in paths(v, (*path, name))]


def replaced(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    inner = body
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return body


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    sample = SAMPLES[draw(st.sampled_from(sorted(SAMPLES)))]
    body = copy.deepcopy(sample["body"])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(body)[1:] or [("data",)]))
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove" and isinstance(path[-1], str):
            replaced(body, path, None)
        elif change == "add" and isinstance(path[-1], str):
            replaced(body, (*path[:-1], "extra"), draw(STRANGE))
        else:
            replaced(body, path, draw(STRANGE))
    return tail_of(sample), body


def assert_storable(delivery: Delivery) -> None:
    form = json.loads(delivery.form_json)
    assert form["kind"] in KINDS
    assert form["answer"] in (True, False)
    for text in (delivery.form_json, delivery.body_json, delivery.headers_json):
        text.encode()
        assert "\\u0000" not in text
        assert "\\ud8" not in text
    assert len(delivery.dedupe_key) == 64
    for name in ("event", "instance", "chat", "message_id", "target_id"):
        assert len(form.get(name, "")) <= 255
    json.loads(delivery.body_json)


@settings(max_examples=600)
@given(mutated())
def test_a_mutated_body_never_raises_and_can_be_stored(
    case: tuple[str, dict[str, Any]],
) -> None:
    tail, body = case
    assert_storable(make_delivery(tail, "", {}, body, trusted=True, now=NOW))


@pytest.mark.parametrize("event", NAMES)
def test_data_of_any_type_is_an_event_without_content(event: str) -> None:
    for data in DATA:
        body = {"event": event, "data": data}
        delivery = make_delivery("", "", {}, body, trusted=True, now=NOW)
        assert_storable(delivery)
        assert delivery.form["event"] == event
        assert not delivery.form["answer"]


@settings(max_examples=200)
@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.dictionaries(st.text(max_size=5), STRANGE, max_size=4),
)
def test_no_path_query_or_body_raises(
    tail: str, query: str, body: dict[str, Any]
) -> None:
    headers = {"X-Event-Type": query, "User-Agent": tail}
    assert_storable(make_delivery(tail, query, headers, body, trusted=True, now=NOW))
    assert_storable(make_delivery(tail, query, {}, body, trusted=True, now=NOW))
