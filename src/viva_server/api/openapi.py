"""The OpenAPI 3.1 document, made from the table of routes and the types in it.

Summaries and descriptions are the docstrings of handlers and types, the codes of
problems follow from what a route takes, and the examples from the schemas.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from viva_server import sse
from viva_server._version import __version__
from viva_server.api import examples
from viva_server.api.codes import FAILURE_STATUS, FAILURES, PROBLEMS, Kind
from viva_server.api.problems import ProblemBody
from viva_server.api.router import Access, Group, PathParameters, Route

Schema = dict[str, Any]

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
_KINDS: Final = {
    **PROBLEMS,
    **{code: Kind(FAILURE_STATUS, when) for code, when in FAILURES.items()},
}
_REF: Final = "#/components/schemas/{name}"
_EVENTS: Final[tuple[type[msgspec.Struct], ...]] = (
    *(sse.AcceptedEvent, sse.ContentEvent, sse.DoneEvent, sse.ErrorEvent),
)
_SECURITY: Final[Mapping[Access, tuple[str, ...]]] = {
    "all": (),
    "person": ("bearer",),
    "admin": ("bearer",),
    # Nothing ("") is needed from this machine, or where no secret is set.
    "local": ("", "bearer"),
    "webhook": (
        *("", "webhookBearer", "webhookBasic", "webhookHeader", "webhookQuery"),
    ),
}
_SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "HS256, with `exp` and `sub` (the user); scope `admin` opens "
        "the operator's routes. A host with `authenticate` has its own way in the "
        "place of this.",
    },
    "webhookBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The webhook's secret, or Evolution's `jwt_key` token.",
    },
    "webhookBasic": {
        "type": "http",
        "scheme": "basic",
        "description": "The webhook's secret as the password.",
    },
    "webhookHeader": {"type": "apiKey", "in": "header", "name": "apikey"},
    "webhookQuery": {"type": "apiKey", "in": "query", "name": "token"},
}


def make_document(groups: Sequence[Group], server_url: str) -> dict[str, Any]:
    """Make the document of a server whose prefix is at `server_url`.

    Raises:
        LookupError: a text of some type has no example.
    """
    schemas = _component_schemas([route for group in groups for route in group.routes])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "viva_server",
            "version": __version__,
            "summary": "A chat that never loses a reply.",
            "description": "What belongs to another person is 404, like what does "
            "not exist. Errors are RFC 9457.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server_url}],
        "tags": [
            {"name": group.name, "description": _paragraphs(group.handlers)[0]}
            for group in groups
        ],
        "paths": _paths(groups, schemas),
        "components": {"schemas": schemas, "securitySchemes": _SECURITY_SCHEMES},
    }


def documented_paths(path: str) -> Iterator[tuple[str, str]]:
    """Give the paths by which a route is known, and what their ids end in."""
    plain = re.sub(r"\{(\w+):.*\}", r"{\1}", path)
    yield plain.replace("{tail}", ""), ""
    if "{tail}" in plain:
        yield plain.replace("{tail}", "/{event}"), "_by_event"


def _paths(groups: Sequence[Group], schemas: Mapping[str, Schema]) -> Schema:
    paths: Schema = {}
    for group, route in [(g, route) for g in groups for route in g.routes]:
        for path, suffix in documented_paths(route.path):
            operation = _operation(group, route, path, schemas)
            operation["operationId"] = route.id + suffix
            item = paths.setdefault(path, {})
            item[route.method] = operation
            if names := re.findall(r"\{(\w+)\}", path):
                item["parameters"] = _parameters("path", PathParameters, names)
            if route.has_head:
                item["head"] = _head(operation)
    return paths


def _operation(
    group: Group, route: Route, path: str, schemas: Mapping[str, Schema]
) -> Schema:
    summary, *more = _paragraphs(route.handler)
    if group.is_at_root:
        more.append("A standalone server has it without the prefix, too.")
    security: list[Schema] = [
        {name: []} if name else {} for name in _SECURITY[route.access]
    ]
    parameters = [
        *_parameters("header", route.headers),
        *_parameters("query", route.query),
    ]
    return {
        "tags": [group.name],
        "summary": summary.removesuffix("."),
        **({"description": " ".join(more)} if more else {}),
        "security": security,
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _request_body(route, schemas)} if route.body else {}),
        "responses": {
            **_responses(route, schemas),
            **_problem_responses(route.problem_codes(path)),
        },
    }


def _paragraphs(described: object) -> list[str]:
    """Give the paragraphs of a docstring, without its sections."""
    told = re.split(r"\n\n(?:Args|Raises):", inspect.getdoc(described) or "")[0]
    return [" ".join(part.split()) for part in told.split("\n\n")]


def _head(get: Schema) -> Schema:
    """Make HEAD of GET: the same responses without their bodies."""
    responses = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    return get | {"operationId": f"{get['operationId']}_head", "responses": responses}


def _parameters(
    place: str, kind: type | None, names: Iterable[str] | None = None
) -> list[Schema]:
    """Make parameters of the fields of a type, or of some of them."""
    if kind is None:
        return []
    fields = _schemas_of([kind])[kind.__name__]["properties"]
    return [
        {
            "name": name,
            "in": place,
            **({"required": True} if place == "path" else {}),
            "description": fields[name].pop("description"),
            "schema": _without_null(fields[name]),
            **examples.of_parameter(kind.__name__, name),
        }
        for name in (fields if names is None else names)
    ]


def _without_null(schema: Schema) -> Schema:
    """Take out what a parameter cannot say: it is missing instead."""
    schema.pop("default", schema) if schema.get("default") is None else None
    return next((k for k in schema.get("anyOf", ()) if k != {"type": "null"}), schema)


def _request_body(route: Route, schemas: Mapping[str, Schema]) -> Schema:
    assert route.body is not None
    schema: Schema = {"type": "object"}
    shown: Mapping[str, Any] = {"event": examples.WEBHOOK}
    if route.body is not dict:
        schema = _reference(route.body.__name__)
        shown = examples.of_request(route.body.__name__, schemas)
    content = {"schema": schema, "examples": _examples(shown)}
    return {"required": not route.is_body_optional, "content": {JSON: content}}


def _responses(route: Route, schemas: Mapping[str, Schema]) -> Schema:
    responses: Schema = {}
    if route.answer:
        media_type, content = _content(route, schemas)
        is_stream = media_type == EVENT_STREAM
        responses["200"] = {
            "description": " Or: ".join(_paragraphs(kind)[0] for kind in route.answer),
            "headers": _REQUEST_ID | (_STREAM_HEADERS if is_stream else {}),
            "content": {media_type: content},
        }
    if route.no_content:
        responses["204"] = {"description": route.no_content, "headers": _REQUEST_ID}
    return responses


def _content(route: Route, schemas: Mapping[str, Schema]) -> tuple[str, Schema]:
    kind = route.answer[0]
    media_type = getattr(kind, "media_type", JSON)
    shown: Mapping[str, Any] = {}
    if not _is_struct(kind):
        schema: Schema = {"type": "object" if media_type == JSON else "string"}
        shown = {} if media_type == JSON else {"text": examples.METRICS}
    else:
        refs = [_reference(each.__name__) for each in route.answer]
        schema = {"anyOf": refs} if len(refs) > 1 else refs[0]
        if media_type == EVENT_STREAM:
            shown = examples.of_stream(route.id)
        else:
            shown = {"answer": examples.of_answer(kind.__name__, schemas, route.id)}
    return media_type, {"schema": schema, "examples": _examples(shown)}


def _problem_responses(codes: Iterable[str]) -> Schema:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(_KINDS[code].status, []).append(code)
    return {
        str(status): _problem_response(status, codes)
        for status, codes in sorted(by_status.items())
    }


def _problem_response(status: int, codes: list[str]) -> Schema:
    # A host's responder has codes of its own.
    code = {} if status == FAILURE_STATUS else {"code": {"enum": codes}}
    schema: Schema = {"properties": {"status": {"const": status}, **code}}
    content = {
        "schema": {"allOf": [_reference("ProblemBody"), schema]},
        "examples": _examples({codes[0]: examples.of_problem(codes[0])}),
    }
    return {
        "description": "\n".join(f"- `{code}`: {_KINDS[code].when}" for code in codes),
        "headers": _REQUEST_ID | _PROBLEM_HEADERS.get(status, {}),
        "content": {"application/problem+json": content},
    }


def _component_schemas(routes: Sequence[Route]) -> dict[str, Schema]:
    """Make all schemas of the components, by name."""
    taken = [route.body for route in routes if _is_struct(route.body)]
    given = [kind for route in routes for kind in route.answer if _is_struct(kind)]
    every: list[type[msgspec.Struct]] = [*given, ProblemBody, *_EVENTS]
    sent = dict.fromkeys(every)
    schemas = _schemas_of(dict.fromkeys((*taken, *sent)))
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    for kind in sent:
        schema = schemas[kind.__name__]
        schema["required"] = _always_sent(kind)
        for member in schema["properties"].values():
            member.pop("default", None)
    for name in ("ProblemBody", "ErrorEvent"):
        schemas[name]["properties"]["code"] = _reference("ProblemCode")
    schemas["ProblemCode"] = _problem_code()
    event = schemas[sse.ServerSentEvent.__name__]
    event["properties"]["data"]["contentSchema"] = _reference("StreamEvent")
    schemas["StreamEvent"] = {
        "description": "The JSON in the `data` line of one event of a stream.",
        "oneOf": [_reference(kind.__name__) for kind in _EVENTS],
    }
    return schemas


def _always_sent(answer: type[msgspec.Struct]) -> list[str]:
    """Name the members that stand in every answer: defaults are sent too."""
    omits = answer.__struct_config__.omit_defaults
    return [
        field.encode_name
        for field in msgspec.structs.fields(answer)
        if field.default is not msgspec.UNSET and (field.required or not omits)
    ]


def _problem_code() -> Schema:
    known: list[Schema] = [
        {"const": code, "description": f"{kind.status}: {kind.when}."}
        for code, kind in _KINDS.items()
    ]
    other = f"{FAILURE_STATUS}: a word of the host's own responder."
    return {
        "description": "The word for programs.",
        "anyOf": [*known, {"type": "string", "description": other}],
    }


def _is_struct(kind: type | None) -> TypeGuard[type[msgspec.Struct]]:
    return issubclass(kind or object, msgspec.Struct)


def _schemas_of(kinds: Iterable[type]) -> dict[str, Schema]:
    return msgspec.json.schema_components(kinds, ref_template=_REF)[1]


def _reference(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}


def _examples(values: Mapping[str, Any]) -> Schema:
    return {name: {"value": value} for name, value in values.items()}


def _header(description: str, **schema: str) -> Schema:
    return {"description": description, "schema": {"type": "string", **schema}}


_REQUEST_ID = {
    "X-Request-Id": _header(
        "The request's own if it is safe to repeat, else a new one."
    )
}
_STREAM_HEADERS = {
    "Viva-Message-Id": _header("The reply's id.", format="uuid"),
    "Content-Location": _header("The URL to come back to.", format="uri-reference"),
}
_CHALLENGE = {"WWW-Authenticate": _header("RFC 6750: how to prove who you are.")}
_RETRY = {
    "Retry-After": _header("Seconds until another try makes sense.", pattern="^[0-9]+$")
}
_PROBLEM_HEADERS = {
    401: _CHALLENGE,
    403: _CHALLENGE,
    429: _RETRY,
    503: _RETRY,
    504: _STREAM_HEADERS,
}
