"""The OpenAPI 3.1 document, made from the table of routes and the types in it.

Summaries and descriptions are the docstrings of handlers and types, the codes of
problems follow from what a route takes, and the examples from the schemas and one table
of values.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from viva_server import sse
from viva_server._version import __version__
from viva_server.api.edge import Access, Group, PathParameters, Route, problem_response
from viva_server.api.problems import (
    FAILURE_STATUS,
    FAILURES,
    PROBLEMS,
    Kind,
    Problem,
    ProblemBody,
    reply_failed,
)

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
            **_example_of_parameter(kind.__name__, name),
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
    shown: Mapping[str, Any] = {"event": WEBHOOK}
    if route.body is not dict:
        schema = _reference(route.body.__name__)
        shown = _examples_of_request(route.body.__name__, schemas)
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
        shown = {} if media_type == JSON else {"text": _METRICS}
    else:
        refs = [_reference(each.__name__) for each in route.answer]
        schema = {"anyOf": refs} if len(refs) > 1 else refs[0]
        if media_type == EVENT_STREAM:
            shown = _examples_of_stream(route.id)
        else:
            shown = {"answer": _example_of_answer(kind.__name__, schemas, route.id)}
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
        "examples": _examples({codes[0]: _example_of_problem(codes[0])}),
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


SESSION: Final = "0199c3a0-5f1e-7c44-9a0e-2b7f6d1c8e55"
QUESTION: Final = "0199c3a0-6a02-7d10-8f3b-51c0a9e4d7b2"
MESSAGE: Final = "0199c3a0-6a03-7b9e-b6a1-0f2d3c4e5a69"
WHATSAPP_MESSAGE: Final = "3EB0C767D097B7C7A1F2"

_AT = "2026-11-22T14:03:07.412Z"
_TEXT = "Olá, Ana!"
_IDS: Final = {"session_id": SESSION, "message_id": MESSAGE}
_PROCESS = "0199c3a0-1a2b-7c3d-8e4f-5a6b7c8d9e0f"
_TURN = "0199c3a0-6b10-7c55-8d21-3f4a5b6c7d8e"
_DEAD = "0199c3a0-6c21-7d66-9e32-4a5b6c7d8e90"

_MISSING = (
    *("active_reply", "dead_at", "deleted_at", "edited_at", "error", "error_code"),
    *("left_at", "next", "problem", "reason", "why_not", "TraceDelivery.receipt"),
)
_OF_WHATSAPP = (
    *("DeadItem.message_id", "MessageState.message_id", "TraceAnswer.message_id"),
    "key_id",
)
_VALUES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_MISSING),
    **dict.fromkeys(_OF_WHATSAPP, WHATSAPP_MESSAGE),
    "DeadItem.id": _DEAD,
    "DeadItem.kind": "send",
    "DeadItem.reason": "not_on_whatsapp",
    "DeadItem.state": "dead",
    "PathParameters.event": "messages-upsert",
    "ProcessItem.id": _PROCESS,
    "ReplayRequest.ids": [_DEAD],
    "ReplayItem.id": _DEAD,
    "ReplayItem.outcome": "replayed",
    "SearchRequest.phone": "(11) 99999-8888",
    "SessionItem.id": SESSION,
    "TraceDelivery.deliveries": 2,
    "TraceDelivery.kind": "message",
    "TraceDelivery.trusted": True,
    "TraceSend.id": "0199c3a0-6c20-7d66-9e32-4a5b6c7d8e9f",
    "TraceSend.message_id": "BAE5F4A6C0B1D2E3",
    "TraceTurn.id": _TURN,
    "TraceTurn.state": "answered",
    "Idempotency-Key": "6f1c2d34-reconnect",
    "Last-Event-ID": f"{MESSAGE}:5",
    "after": f"{MESSAGE}:5",
    "chars": len(_TEXT),
    "chat": "5511999998888@s.whatsapp.net",
    "conteudo": _TEXT,
    "counted_up_to": 1000,
    "event": "messages.upsert",
    "finish_reason": "stop",
    "host": "vps-1",
    "id": MESSAGE,
    "instance": "loja",
    "kind": "text",
    "mensagem": "Bom dia!",
    "message_count": 2,
    "message_id": MESSAGE,
    "modo": "curto",
    "outcome": "sent",
    "page_size": 20,
    "pid": 4711,
    "process_id": _PROCESS,
    "receipt": "READ",
    "resposta": _TEXT,
    "seq": 2,
    "session_id": SESSION,
    "state": "sent",
    "status": "complete",
    "tipo": "ia",
    "titulo": "Bom dia!",
    "turn_id": _TURN,
    "user_message_id": QUESTION,
    "version": "0.1.0",
}
"""Values of members, by their names, or by `Type.name` where it depends on the type.

A member that is not here has what its schema says (`_value`).
"""

_ITEMS: Final[Mapping[str, tuple[Mapping[str, Any], ...]]] = {
    "Snapshot.messages": (
        {
            "id": QUESTION,
            "seq": 1,
            "tipo": "usuario",
            "conteudo": "Bom dia!",
            "meta": {"contexto_len": 0},
            "finish_reason": None,
        },
        {},
    ),
}
"""What is different in each item of a list; other lists have one item."""

_DIFFERENT: Final[Mapping[str, Mapping[str, Any]]] = {
    "add_session": {"messages": []},
    "stop": {"conteudo": "Olá, ", "status": "partial", "finish_reason": "stopped"},
}
"""What is different in the answer of one operation, by its id."""

_LIVE = {"message_id": MESSAGE, "resume_url": f"/api/v1/viva/chat/stream/{MESSAGE}"}
_OF_PROBLEM: Final[Mapping[str, Mapping[str, Any]]] = {
    "reply_in_progress": _LIVE,
    "reply_pending": _LIVE,
    "upstream_timeout": {"message_id": MESSAGE},
    "validation_error": {"errors": [("/mensagem", "must not be blank")]},
}
"""What a problem has besides what all have, by its code."""

WEBHOOK: Final = {
    "event": "messages.upsert",
    "instance": "loja",
    "data": {
        "key": {
            "id": WHATSAPP_MESSAGE,
            "remoteJid": "5511999998888@s.whatsapp.net",
            "fromMe": False,
        },
        "pushName": "Ana",
        "messageType": "conversation",
        "message": {"conversation": "Bom dia!"},
        "messageTimestamp": 1795356187,
    },
}
_METRICS: Final = "# HELP viva_readers Readers in this process.\nviva_readers 12.0\n"


def _example_of_answer(name: str, schemas: Mapping[str, Schema], operation: str) -> Any:
    """Make an example of a schema as an operation answers with it."""
    return {**_object(name, schemas), **_DIFFERENT.get(operation, {})}


def _examples_of_request(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Make examples of a request: with what it needs, and with all it may have."""
    whole = _object(name, schemas)
    needed = schemas[name].get("required", ())
    least = {member: value for member, value in whole.items() if member in needed}
    return (
        {"least": least, "all": whole} if least not in ({}, whole) else {"all": whole}
    )


def _example_of_problem(code: str) -> Any:
    """Make the body of a problem."""
    members = _OF_PROBLEM.get(code, {})
    detail = "A sentence for people."
    problem = (
        reply_failed(code, detail, retryable=True, **members)
        if code in FAILURES
        else Problem(code, detail, **members)
    )
    body = problem_response(problem, "4bf92f3577b34da6a3ce929d0e0e4736").body
    assert isinstance(body, bytes)
    return json.loads(body)


def _example_of_parameter(kind: str, name: str) -> dict[str, Any]:
    """Give `example` of a parameter, which is a member of the type `kind`."""
    value = _VALUES.get(f"{kind}.{name}", _VALUES.get(name))
    return {} if value is None else {"example": value}


def _examples_of_stream(operation: str) -> dict[str, str]:
    """Make examples of the streams of an operation, as they are written."""
    begun, resumed = (
        sse.accepted_event(**_IDS, user_message_id=QUESTION, offset=at, resumed=at > 0)
        for at in (0, 5)
    )
    first = sse.content_event(MESSAGE, 5, _TEXT[:5])
    rest = sse.content_event(MESSAGE, 9, _TEXT[5:]) + sse.done_event(
        **_IDS,
        status="complete",
        finish_reason="stop",
        chars=len(_TEXT),
        sha256=hashlib.sha256(_TEXT.encode()).hexdigest(),
        message_count=2,
    )
    if operation == "resume":
        return {"rest": (resumed + rest).decode()}
    error = "A resposta demorou demais para começar. Tente de novo."
    failure = sse.error_event(
        **_IDS, error=error, code="upstream_timeout", retryable=True
    )
    return {
        "reply": (begun + first + rest).decode(),
        "failure": (begun + failure).decode(),
    }


def _object(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    members = schemas[name]["properties"].items()
    return {member: _value(name, member, kind, schemas) for member, kind in members}


def _value(
    name: str, member: str, schema: Schema, schemas: Mapping[str, Schema]
) -> Any:
    """Make the value of a member; raise LookupError for a text that nobody gave."""
    if (key := f"{name}.{member}") in _VALUES:
        return _VALUES[key]
    words = schema.get("enum", ())
    if member in _VALUES and len(words) != 1:
        return _VALUES[member]
    match schema:
        case {"$ref": reference}:
            return _object(reference.rpartition("/")[2], schemas)
        case {"enum": _}:
            return words[0]
        case {"format": "date-time"}:
            return _AT
        case {"anyOf": [kind, *_]}:
            return _value(name, member, kind, schemas)
        case {"type": "array", "items": items} if items:
            item = _value(name, member, items, schemas)
            return [{**item, **more} for more in _ITEMS.get(key, ())] or [item]
        case {"type": "string"}:
            raise LookupError(f"api/openapi.py has no example for {key}")
    return _EMPTY[schema["type"]]


_EMPTY: Final[Mapping[str, Any]] = {
    "array": [],
    "boolean": False,
    "integer": 1,
    "number": 0.5,
    "object": {},
}
