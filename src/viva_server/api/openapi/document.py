"""Putting the document together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from viva_server._version import __version__
from viva_server.api.codes import FAILURE_STATUS, FAILURES, PROBLEMS
from viva_server.api.openapi import examples
from viva_server.api.openapi.chat_operations import CHAT, SESSIONS
from viva_server.api.openapi.operation import (
    EVENT_STREAM,
    JSON,
    Access,
    Answer,
    Body,
    Operation,
)
from viva_server.api.openapi.operator_operations import OPERATOR
from viva_server.api.openapi.other_operations import OPERATING, WEBHOOK
from viva_server.api.openapi.parameters import (
    HEADERS,
    PATH_PARAMETERS,
    STREAM_HEADERS,
    query_parameters,
)
from viva_server.api.openapi.schemas import Schema, component_schemas, reference

ALL: Final = (*CHAT, *SESSIONS, *WEBHOOK, *OPERATOR, *OPERATING)

_PROBLEM = "application/problem+json"
ANYWHERE: Final = ("bad_request", "expectation_failed", "internal_error")
"""Codes that any operation may answer with."""

_WITH_RETRY_AFTER = frozenset({429, 503})
_WITH_CHALLENGE = frozenset({401, 403})

_SECURITY: Final[dict[Access, list[dict[str, list[str]]]]] = {
    "all": [],
    "person": [{"bearer": []}],
    "admin": [{"bearer": []}],
    # Nothing is needed from this machine, or where no secret is set.
    "local": [{}, {"bearer": []}],
    "webhook": [
        {},
        {"webhookBearer": []},
        {"webhookBasic": []},
        {"webhookHeader": []},
        {"webhookQuery": []},
    ],
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

_TAGS: Final = [
    {"name": "chat", "description": "Asking, streaming, coming back, stopping."},
    {"name": "sessions", "description": "A person's sessions."},
    {"name": "webhook", "description": "What Evolution API posts."},
    {"name": "operator", "description": "What happens on all processes, and replays."},
    {"name": "operations", "description": "How the server is."},
]


def make_document(server_url: str) -> dict[str, Any]:
    """Make the document of a server whose prefix is at `server_url`."""
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
        "tags": _TAGS,
        "paths": _paths(ALL),
        "components": {
            "schemas": component_schemas(),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def problem_codes(operation: Operation) -> tuple[str, ...]:
    """Name every code that an operation may answer with, in the order of the list."""
    codes = {*operation.codes, *ANYWHERE}
    return tuple(code for code in (*PROBLEMS, *FAILURES) if code in codes)


def _paths(operations: Iterable[Operation]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations:
        item = paths.setdefault(operation.path, {})
        item[operation.method] = _operation(operation)
        if operation.has_head:
            item["head"] = _head(item[operation.method])
    for path, item in paths.items():
        if named := [p for name, p in PATH_PARAMETERS.items() if f"{{{name}}}" in path]:
            item["parameters"] = named
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    members = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": _SECURITY[operation.access],
        "parameters": [
            *(HEADERS[name] for name in operation.headers),
            *query_parameters(operation.query),
        ],
        "requestBody": operation.body and _request_body(operation.body),
        "responses": {
            **{str(answer.status): _response(answer) for answer in operation.answers},
            **_problem_responses(problem_codes(operation)),
        },
    }
    return {
        name: value
        for name, value in members.items()
        if value or name in {"security", "responses"}
    }


def _head(get: dict[str, Any]) -> dict[str, Any]:
    """Make HEAD of GET: the same responses without their bodies."""
    responses = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    operation_id = f"{get['operationId']}_head"
    return {**get, "operationId": operation_id, "responses": responses}


def _request_body(body: Body) -> dict[str, Any]:
    schema = {"type": "object"} if body.schema is None else reference(body.schema)
    content = {"schema": schema, "examples": _examples(body.examples)}
    return {"required": body.is_required, "content": {JSON: content}}


def _response(answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": answer.description,
        "headers": _headers(answer),
    }
    if answer.status != 204:
        response["content"] = {answer.media_type: _content(answer)}
    return response


def _headers(answer: Answer) -> dict[str, Any]:
    headers = {"X-Request-Id": _REQUEST_ID}
    return headers | STREAM_HEADERS if answer.media_type == EVENT_STREAM else headers


def _content(answer: Answer) -> dict[str, Any]:
    refs = [reference(name) for name in answer.schemas]
    schema = {"anyOf": refs} if len(refs) > 1 else next(iter(refs), None)
    if schema is None:
        schema = {"type": "object" if answer.media_type == JSON else "string"}
    return {"schema": schema, "examples": _examples(answer.examples)}


def _problem_responses(codes: Iterable[str]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        status = PROBLEMS[code].status if code in PROBLEMS else FAILURE_STATUS
        by_status.setdefault(status, []).append(code)
    return {
        str(status): _problem_response(status, codes)
        for status, codes in sorted(by_status.items())
    }


def _problem_response(status: int, codes: list[str]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": _REQUEST_ID}
    if status in _WITH_RETRY_AFTER:
        headers["Retry-After"] = _RETRY_AFTER
    if "reply_pending" in codes:
        headers |= STREAM_HEADERS
    if status in _WITH_CHALLENGE:
        headers["WWW-Authenticate"] = _CHALLENGE
    # A host's responder has codes of its own.
    code = {} if status == FAILURE_STATUS else {"code": {"enum": codes}}
    schema: Schema = {"properties": {"status": {"const": status}, **code}}
    content = {
        "schema": {"allOf": [reference("ProblemBody"), schema]},
        "examples": _examples({codes[0]: examples.problem(status, codes[0])}),
    }
    return {
        "description": _meanings(codes),
        "headers": headers,
        "content": {_PROBLEM: content},
    }


def _meanings(codes: list[str]) -> str:
    meanings = {code: kind.when for code, kind in PROBLEMS.items()} | dict(FAILURES)
    return "\n".join(f"- `{code}`: {meanings[code]}" for code in codes)


def _examples(values: Any) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}


_REQUEST_ID = {
    "description": "The request's own if it is safe to repeat, else a new one.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {
    "description": "Seconds until another try makes sense.",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}
_CHALLENGE = {
    "description": "RFC 6750: how to prove who you are.",
    "schema": {"type": "string"},
}
