"""Examples of all that goes over the wire: one table of values, and the schemas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from viva_server import sse
from viva_server.api.codes import FAILURES
from viva_server.api.edge import problem_response
from viva_server.api.problems import Problem, reply_failed

Schema = Mapping[str, Any]

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
METRICS: Final = "# HELP viva_readers Readers in this process.\nviva_readers 12.0\n"


def of_answer(name: str, schemas: Mapping[str, Schema], operation: str) -> Any:
    """Make an example of a schema as an operation answers with it."""
    return {**_object(name, schemas), **_DIFFERENT.get(operation, {})}


def of_request(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Make examples of a request: with what it needs, and with all it may have."""
    whole = _object(name, schemas)
    needed = schemas[name].get("required", ())
    least = {member: value for member, value in whole.items() if member in needed}
    return (
        {"least": least, "all": whole} if least not in ({}, whole) else {"all": whole}
    )


def of_problem(code: str) -> Any:
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


def of_parameter(kind: str, name: str) -> dict[str, Any]:
    """Give `example` of a parameter, which is a member of the type `kind`."""
    value = _VALUES.get(f"{kind}.{name}", _VALUES.get(name))
    return {} if value is None else {"example": value}


def of_stream(operation: str) -> dict[str, str]:
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
            raise LookupError(f"api/examples.py has no value for {key}")
    return _EMPTY[schema["type"]]


_EMPTY: Final[Mapping[str, Any]] = {
    "array": [],
    "boolean": False,
    "integer": 1,
    "number": 0.5,
    "object": {},
}
