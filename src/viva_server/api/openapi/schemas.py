"""The schemas of OpenAPI, made from the types that check requests and shape answers."""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec

from viva_server import sse
from viva_server.api import answers, operator_answers, wire
from viva_server.api.codes import FAILURE_STATUS, FAILURES, PROBLEMS

Schema = dict[str, Any]

_REQUESTS: Final = (
    wire.ChatRequest,
    wire.NewSessionRequest,
    operator_answers.ReplayRequest,
    operator_answers.SearchRequest,
)
_ANSWERS: Final = (
    wire.ChatAnswer,
    wire.MessageItem,
    wire.Snapshot,
    wire.SessionPage,
    answers.Health,
    answers.Readiness,
    answers.WebhookDescription,
    answers.TraceAnswer,
    operator_answers.Overview,
    operator_answers.DeadPage,
    operator_answers.ReplayAnswer,
    operator_answers.SearchAnswer,
    answers.WebhookStored,
    answers.WebhookIgnored,
    answers.ProblemBody,
    sse.AcceptedEvent,
    sse.ContentEvent,
    sse.DoneEvent,
    sse.ErrorEvent,
)
_EVENTS: Final = ("AcceptedEvent", "ContentEvent", "DoneEvent", "ErrorEvent")
_REF = "#/components/schemas/{name}"


def reference(name: str) -> Schema:
    """Refer to a schema among the components."""
    return {"$ref": _REF.format(name=name)}


def component_schemas() -> dict[str, Schema]:
    """Make all schemas of the components, by name."""
    _, schemas = msgspec.json.schema_components(
        (*_REQUESTS, *_ANSWERS), ref_template=_REF
    )
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    for answer in _ANSWERS:
        schema = schemas[answer.__name__]
        schema["required"] = _always_sent(answer)
        for member in schema["properties"].values():
            member.pop("default", None)
    schemas["ProblemBody"]["properties"]["code"] = reference("ProblemCode")
    schemas["ErrorEvent"]["properties"]["code"] = reference("ProblemCode")
    schemas["ProblemCode"] = _problem_code()
    schemas["StreamEvent"] = {
        "description": "The JSON in the `data` line of one event of a stream.",
        "oneOf": [reference(name) for name in _EVENTS],
    }
    schemas["ServerSentEvent"] = _server_sent_event()
    return schemas


def query_schemas(query: type[msgspec.Struct]) -> dict[str, Schema]:
    """Make the schemas of a query's parameters, by name."""
    _, schemas = msgspec.json.schema_components((query,))
    properties: dict[str, Schema] = schemas[query.__name__]["properties"]
    return properties


def _always_sent(answer: type[msgspec.Struct]) -> list[str]:
    """Name the members that stand in every answer: defaults are sent too."""
    config = answer.__struct_config__
    return [
        field.encode_name
        for field in msgspec.structs.fields(answer)
        if field.default is not msgspec.UNSET
        and not (config.omit_defaults and not field.required)
    ]


def _server_sent_event() -> Schema:
    """Describe an event by its fields, as OpenAPI 3.2 does (`itemSchema`)."""
    return {
        "description": "One event of a stream. OpenAPI 3.1 has no word for a sequence "
        "of them; this is the schema of each.",
        "type": "object",
        "properties": {
            "id": {
                "type": "string",
                "description": "The message's id and how many characters of the reply "
                "there are up to here, or `end`: the cursor to come back with.",
                "pattern": "^[0-9a-f-]{36}:(end|[0-9]+)$",
            },
            "retry": {"type": "integer", "description": "Milliseconds."},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": reference("StreamEvent"),
            },
        },
        "required": ["id", "data"],
    }


def _problem_code() -> Schema:
    known = [
        {"const": code, "description": f"{kind.status}: {kind.when}."}
        for code, kind in PROBLEMS.items()
    ]
    failures = [
        {"const": code, "description": f"{FAILURE_STATUS}: {when}."}
        for code, when in FAILURES.items()
    ]
    other = {
        "type": "string",
        "description": f"{FAILURE_STATUS}: a word of the host's own responder.",
    }
    return {
        "description": "The word for programs.",
        "anyOf": [*known, *failures, other],
    }
