"""The OpenAPI document says what the routes are, and nothing else."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.chat_host import settings
from tests.openapi import EVENT, EVENT_STREAM, PREFIX, Document, sse_events
from viva_server import create_app
from viva_server.api.problems import FAILURES, PROBLEMS

SOURCES = Path(__file__).parents[2] / "src" / "viva_server"
DOCUMENT = Document()


def routes(app: web.Application) -> Iterator[tuple[str, str]]:
    """Give path, as OpenAPI writes it, and method of every route that does a thing."""
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical.removeprefix(PREFIX)
        if route.method in {"*", "OPTIONS"}:
            continue
        yield path.replace("{tail}", ""), route.method.lower()
        if "{tail}" in path:
            yield path.replace("{tail}", "/{event}"), route.method.lower()


def test_every_route_is_in_the_document_and_every_operation_is_a_route() -> None:
    app = create_app(settings("postgresql:///never"))

    documented = [(path, method) for path, method, _ in DOCUMENT.operations()]

    assert sorted(documented) == sorted(routes(app))


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT.members["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT.members).validate()


def test_every_reference_is_used_and_every_operation_has_its_own_id() -> None:
    text = str(DOCUMENT.members)
    used = set(re.findall("#/components/schemas/([A-Za-z]+)", text))
    ids = [operation["operationId"] for _, _, operation in DOCUMENT.operations()]

    assert used == DOCUMENT.members["components"]["schemas"].keys()
    assert len(set(ids)) == len(ids)


def contents() -> Iterator[tuple[str, str, Any]]:
    for path, method, operation in DOCUMENT.operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media_type, content in body.get("content", {}).items():
                yield f"{method} {path}", media_type, content


def test_every_example_is_as_its_schema_says() -> None:
    wrong, count = [], 0
    for name, media_type, content in contents():
        for example in (
            content["examples"].values() if media_type != EVENT_STREAM else ()
        ):
            count += 1
            problems = DOCUMENT.problems(example["value"], content["schema"])
            wrong += [f"{name}: {problem}" for problem in problems]

    assert not wrong
    assert count > 50


def test_every_operation_has_an_example_of_what_it_takes_and_gives() -> None:
    missing = [name for name, _, content in contents() if not content["examples"]]

    assert missing == ["get /openapi.json"]


def test_every_example_of_a_stream_has_events_as_their_schema_says() -> None:
    streams = [content for _, kind, content in contents() if kind == EVENT_STREAM]
    events = [
        event
        for content in streams
        for example in content["examples"].values()
        for event in sse_events(example["value"])
    ]

    assert [content["schema"] for content in streams] == [EVENT, EVENT, EVENT]
    assert len(events) == 15
    assert not [p for event in events for p in DOCUMENT.event_problems(event)]


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"content": 1},
        {"accepted": False},
        {"done": True},
        {"error": "text without a code"},
    ],
    ids=str,
)
def test_what_is_no_event_is_refused(event: object) -> None:
    assert DOCUMENT.problems(event, {"$ref": "#/components/schemas/StreamEvent"})


def test_every_code_is_documented_with_its_status() -> None:
    schema = DOCUMENT.members["components"]["schemas"]["ProblemCode"]
    listed = {
        one["const"]: one["description"] for one in schema["anyOf"] if "const" in one
    }

    assert listed.keys() == PROBLEMS.keys() | FAILURES.keys()
    for code, kind in PROBLEMS.items():
        assert listed[code].startswith(f"{kind.status}: ")


ONLY_TOLD = {
    *("PROBLEMS", "FAILURES", "ANYWHERE", "_OF_PROBLEM"),
    *("_REFUSALS", "_BODY_CODES", "_RAW_BODY_CODES", "_CODES_OF"),
}
"""Tables that name codes and raise none."""


@functools.cache
def code_of_sources() -> str:
    """Give the sources without the tables that only tell of codes."""
    lines: list[str] = []
    told = set()
    for path in SOURCES.rglob("*.py"):
        text = path.read_text("utf-8")
        kept = text.splitlines()
        for node in ast.parse(text).body:
            name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
            if name in ONLY_TOLD:
                told.add(name)
                kept[node.lineno - 1 : node.end_lineno] = [""] * (
                    (node.end_lineno or node.lineno) - node.lineno + 1
                )
        if path.name != "routes.py":
            lines += kept
    assert told == ONLY_TOLD
    return "\n".join(lines)


@pytest.mark.parametrize("code", [*PROBLEMS, *FAILURES])
def test_every_listed_code_is_used(code: str) -> None:
    assert f'"{code}"' in code_of_sources()


def test_every_code_of_a_responder_is_listed() -> None:
    raised = set(
        re.findall(r'ResponderError\(\s*"([a-z_]+)"', code_of_sources())
        + re.findall(r'"upstream_error", "([a-z_]+)"', code_of_sources())
    )

    assert len(raised) > 6
    assert raised <= FAILURES.keys()


def test_only_what_this_machine_may_read_is_documented_as_open_to_it() -> None:
    needs = {
        operation["operationId"]: operation["security"]
        for _, _, operation in DOCUMENT.operations()
    }

    assert needs["trace"] == [{"bearer": []}]
    assert needs["metrics"] == [{}, {"bearer": []}]
