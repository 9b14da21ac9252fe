"""Make docs/http-api.md from the OpenAPI document and the prose of its template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from viva_server.api.edge import ANYWHERE
from viva_server.api.openapi import make_document
from viva_server.api.problems import FAILURE_STATUS, FAILURES, PROBLEMS
from viva_server.api.routes import GROUPS

FOLDER = Path(__file__).parent
PAGE = FOLDER / "http-api.md"
TEMPLATE = FOLDER / "templates" / "http-api.md"

_LINE_CHARS = 100
_EVENTS = ("AcceptedEvent", "ContentEvent", "DoneEvent", "ErrorEvent")
_NO_OBJECTS = frozenset({*_EVENTS, "ProblemCode", "StreamEvent", "ServerSentEvent"})
_FOR_OPERATORS = frozenset(
    route.id for group in GROUPS for route in group.routes if route.access == "admin"
)
_ACCESS = {
    "bearer": "Bearer",
    "webhookBearer": "secret, where one is set",
}


def page() -> str:
    """Make the page's text."""
    document = make_document(GROUPS, "/api/v1")
    schemas = document["components"]["schemas"]
    parts = {
        "routes": _table(("route", "does", "needs"), _routes(document)),
        "operations": "\n\n".join(_operations(document)),
        "objects": "\n\n".join(
            _object(name, schema)
            for name, schema in schemas.items()
            if name not in _NO_OBJECTS
        ),
        "events": "\n\n".join(_object(name, schemas[name]) for name in _EVENTS),
        "stream": _stream(document),
        "problems": _table(
            ("status", "`code`", "when"),
            ((str(kind.status), f"`{code}`", kind.when) for code, kind in _sorted()),
        ),
        "failures": _table(
            ("`code`", "when"), ((f"`{code}`", when) for code, when in FAILURES.items())
        ),
        "failure_status": str(FAILURE_STATUS),
    }
    text = TEMPLATE.read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def _sorted() -> list[Any]:
    return sorted(PROBLEMS.items(), key=lambda item: item[1].status)


def _described(document: Any) -> Iterator[tuple[str, Any, Any]]:
    """Give each operation but HEAD: its name, its members, those of its path."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method not in {"parameters", "head"}:
                yield f"{method.upper()} {path}", operation, item


def _routes(document: Any) -> Iterator[tuple[str, ...]]:
    for name, operation, _ in _described(document):
        yield f"`{name}`", operation["summary"], _needs(operation)


def _needs(operation: Any) -> str:
    if operation["operationId"] == "metrics":
        return "Bearer with scope `admin`, but from this machine"
    if operation["operationId"] in _FOR_OPERATORS:
        return "Bearer with scope `admin`"
    schemes = [scheme for one in operation["security"] for scheme in one]
    return _ACCESS[schemes[0]] if schemes else ""


def _operations(document: Any) -> Iterator[str]:
    for name, operation, item in _described(document):
        parts = [
            f"### {name}",
            f"{operation['summary']}. {operation.get('description', '')}".strip(),
            _parameters(
                [*item.get("parameters", ()), *operation.get("parameters", ())]
            ),
            _body(operation),
            _answers(operation),
        ]
        yield "\n\n".join(part for part in parts if part)


def _parameters(parameters: list[Any]) -> str:
    rows = [
        (f"`{one['name']}`", one["in"], _type(one["schema"]), one["description"])
        for one in parameters
    ]
    return _table(("parameter", "in", "type", "meaning"), rows) if rows else ""


def _body(operation: Any) -> str:
    if "requestBody" not in operation:
        return ""
    body = operation["requestBody"]
    [content] = body["content"].values()
    what = _type(content["schema"])
    example = next(iter(content["examples"].values()))["value"]
    optional = "" if body["required"] else ", or nothing"
    return f"Body: {what}{optional}.\n\n{_json(example)}"


def _answers(operation: Any) -> str:
    rows, example = [], ""
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if int(status) < 400:
            body = next(iter(content.values()), None)
            rows.append((status, response["description"], _answer(content)))
            example = example or _answer_example(content, body)
        elif codes := _codes(response["description"]):
            rows.append((status, codes, ""))
    table = _table(("answer", "when", "body"), rows)
    return f"{table}\n\n{example}" if example else table


def _answer(content: Any) -> str:
    if not content:
        return ""
    [(media_type, body)] = content.items()
    is_object = media_type == "application/json"
    return _type(body["schema"]) if is_object else f"`{media_type}`"


def _answer_example(content: Any, body: Any) -> str:
    if "application/json" not in content or not body["examples"]:
        return ""
    return _json(next(iter(body["examples"].values()))["value"])


def _codes(description: str) -> str:
    codes = [line[2:].partition(":")[0] for line in description.splitlines()]
    return ", ".join(code for code in codes if code.strip("`") not in ANYWHERE)


def _stream(document: Any) -> str:
    content = document["paths"]["/viva/chat/stream"]["post"]["responses"]["200"]
    examples = content["content"]["text/event-stream"]["examples"]
    lines: str = examples["reply"]["value"].strip()
    return f"<!-- not run: it shows what is written -->\n```\n{lines}\n```"


def _object(name: str, schema: Any) -> str:
    rows = [
        (
            f"`{member}`" + ("" if member in schema["required"] else " (optional)"),
            _type(kind),
            kind.get("description", ""),
        )
        for member, kind in schema["properties"].items()
    ]
    head = ("member", "type", "meaning")
    if not any(meaning for _, _, meaning in rows):
        table = _table(head[:2], (row[:2] for row in rows))
    else:
        table = _table(head, rows)
    description = " ".join(schema["description"].split())
    return f"### {name}\n\n{description}\n\n{table}"


def _type(schema: Any) -> str:
    """Say in words what a schema takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "text" if name in _NO_OBJECTS else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{_word(word)}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{_word(schema['const'])}`"
    if schema["type"] == "array":
        return _array(schema)
    kind: str = schema["type"]
    return _KINDS.get(kind, kind) + _limits(schema)


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _array(schema: Any) -> str:
    if schema.get("maxItems") == 0:
        return "empty array"
    return f"array of {_type(schema['items'])}" if "items" in schema else "array"


def _limits(schema: Any) -> str:
    limits = [
        text.format(schema[name])
        for name, text in _LIMITS.items()
        if schema.get(name) is not None
    ]
    return f" ({', '.join(limits)})" if limits else ""


_KINDS = {"string": "text", "integer": "number"}
_LIMITS = {
    "format": "{}",
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "{} or more characters",
    "maxLength": "at most {} characters",
    "default": "else {}",
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(_row(line) for line in lines)


def _row(cells: tuple[str, ...]) -> str:
    if set(cells) == {"---"}:
        return f"|{'|'.join(cells)}|"
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _LINE_CHARS:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return f"```json\n{text}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
