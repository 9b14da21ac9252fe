"""The event is found in every form of URL that Evolution builds."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from viva_server.whatsapp.events.parse import find_event, find_instance, plain_tail
from viva_server.whatsapp.events.table import EVENTS, Event

LISTED = json.loads(
    (Path(__file__).parents[2] / "data" / "evolution_events.json").read_text("utf-8")
)
BODY = {"data": None}

every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.path)


def test_the_table_is_the_list_that_was_read_in_evolutions_source() -> None:
    assert [(e.config, e.name, e.path) for e in EVENTS] == [
        (row["config"], row["event"], row["path"]) for row in LISTED
    ]


@every_event
@pytest.mark.parametrize(
    "form",
    [
        "/{path}",
        "//{path}",
        "/{path}/",
        "///{path}//",
        "/{upper}",
        "/{config}",
        "/{name}",
        "/%2F{encoded}",
        "/a/customer/{path}",
    ],
)
def test_a_path_tells_its_event(event: Event, form: str) -> None:
    tail = form.format(
        path=event.path,
        upper=event.path.upper(),
        config=event.config,
        name=event.name,
        encoded="".join(f"%{ord(letter):02x}" for letter in event.path),
    )
    assert find_event(tail, "", {}, BODY)[:3] == (event.name, event.kind, True)


@every_event
@pytest.mark.parametrize("query", ["token=abc/{}", "token=abc//{}", "x=1&token={}/{}"])
def test_a_query_that_evolution_appended_to_tells_its_event(
    event: Event, query: str
) -> None:
    query = query.replace("{}", "abc", query.count("{}") - 1).format(event.path)
    assert find_event("", query, {}, BODY).name == event.name


@every_event
def test_the_body_goes_before_the_header_before_the_path(event: Event) -> None:
    headers = {"X-Event-Type": "call"}
    body = {"event": event.name}
    assert find_event("/labels-edit", "", headers, body).name == event.name
    assert find_event("/labels-edit", "", headers, BODY).name == "call"
    assert find_event("/labels-edit", "token=a/call", {}, BODY).name == "labels.edit"


@pytest.mark.parametrize("tail", ["/foo-bar", "//foo-bar/", "/messages-upserted", "/é"])
def test_an_unknown_tail_stays_as_it_is(tail: str) -> None:
    found = find_event(quote(tail), "", {}, BODY)
    assert (found.name, found.known) == (tail.strip("/"), False)


def test_an_unknown_event_of_the_body_stays_as_it_is() -> None:
    found = find_event("/messages-upsert", "", {}, {"event": "groups.leave"})
    assert (found.name, found.kind, found.known) == ("groups.leave", "system", False)


def test_the_end_of_a_secret_with_a_slash_is_no_event() -> None:
    assert find_event("", "token=first/second", {}, BODY).name == "unknown"


@pytest.mark.parametrize("empty", ["", " ", None, 5, [], {}])
def test_an_event_that_is_no_name_is_none(empty: object) -> None:
    assert find_event("/call", "", {}, {"event": empty}).name == "call"


def test_an_event_is_never_longer_than_a_column_takes() -> None:
    assert len(find_event("", "", {}, {"event": "x" * 100_000}).name) == 255
    assert len(find_event("/" + "y" * 9000, "", {}, {}).name) == 255


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {"instance": "loja"}),
        ({}, {"instanceName": "loja"}),
        ({}, {"inputs": {"instanceName": "loja"}}),
        ({"X-Instance-Name": "loja"}, {"instance": None}),
        ({}, {"instance": {}, "data": {"instance": "loja"}}),
    ],
)
def test_the_instance_is_found_wherever_a_version_puts_it(
    headers: dict[str, str], body: dict[str, object]
) -> None:
    assert find_instance(headers, body) == "loja"


def test_a_stored_tail_has_no_empty_segments_and_nothing_unstorable() -> None:
    assert plain_tail("//a%2Fb//c%00/") == "a/b/c\ufffd"
