"""The document of the routes, and whether what a server answers is as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from viva_server.api.openapi import make_document
from viva_server.api.routes import GROUPS

PREFIX = "/api/v1"
EVENT_STREAM = "text/event-stream"
EVENT = {"$ref": "#/components/schemas/ServerSentEvent"}
_URI = "urn:openapi"
_FORMATS = FormatChecker()


@_FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    # jsonschema checks this format only with a library more.
    return (
        not isinstance(value, str)
        or re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value
        )
        is not None
    )


class Document:
    """The document, as it is served."""

    def __init__(self, members: Mapping[str, Any] | None = None) -> None:
        made = json.dumps(make_document(GROUPS, PREFIX)) if members is None else None
        self.members: Any = members if made is None else json.loads(made)
        resource = DRAFT202012.create_resource(self.members)
        registry: Registry[Any] = Registry()
        self._registry = registry.with_resource(_URI, resource)

    def operations(self) -> Iterator[tuple[str, str, Any]]:
        """Give path, method and members of every operation."""
        for path, item in self.members["paths"].items():
            for method, operation in item.items():
                if method != "parameters":
                    yield path, method, operation

    def problems(self, value: object, schema: object) -> list[str]:
        """Say what of a value is not as the schema, a part of this document, says."""
        validator = Draft202012Validator(
            _absolute(schema), registry=self._registry, format_checker=_FORMATS
        )
        return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(value)]

    def event_problems(self, event: Mapping[str, Any]) -> list[str]:
        """Say what of an event, and of the JSON in it, is not as it should be."""
        found = self.problems(event, EVENT)
        data: Any = self.members["components"]["schemas"]["ServerSentEvent"]
        content = data["properties"]["data"]["contentSchema"]
        return found or self.problems(json.loads(event["data"]), content)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server answered; `path` is the one of the document."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def complaints(document: Document, seen: Seen) -> list[str]:
    """Say what of an answer is not as the document says."""
    operation = document.members["paths"][seen.path][seen.method]
    response = operation["responses"].get(str(seen.status))
    if response is None:
        return [f"status {seen.status} is not documented: {seen.body!r}"]
    names = {name.lower() for name in seen.headers}
    missing = [n for n in response["headers"] if n.lower() not in names]
    found = [f"header {name} is missing" for name in missing]
    if "content" not in response:
        return [*found, *(["there is a body"] if seen.body else [])]
    [(media_type, content)] = response["content"].items()
    declared = seen.headers["Content-Type"].partition(";")[0]
    if declared != media_type:
        return [*found, f"{declared} instead of {media_type}"]
    if media_type == EVENT_STREAM:
        events = sse_events(seen.body.decode())
        return found + [p for event in events for p in document.event_problems(event)]
    is_json = media_type.endswith("json")
    value = json.loads(seen.body) if is_json else seen.body.decode()
    return found + document.problems(value, content["schema"])


def sse_events(stream: str) -> list[dict[str, Any]]:
    """Give the fields of each event."""
    blocks = re.sub("^:.*\n", "", stream, flags=re.MULTILINE).split("\n\n")[:-1]
    events = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        number = {"retry": int(fields["retry"])} if "retry" in fields else {}
        events.append({**fields, **number})
    return events


def _absolute(schema: Any) -> Any:
    """Make references within the document such that work outside of it."""
    if isinstance(schema, dict):
        return {
            name: f"{_URI}{value}" if name == "$ref" else _absolute(value)
            for name, value in schema.items()
        }
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema
