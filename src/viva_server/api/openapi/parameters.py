"""What stands in a path, a query and the headers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from viva_server.api.openapi import examples
from viva_server.api.openapi.schemas import query_schemas
from viva_server.api.query import MAX_KEY_CHARS

_UUID: Final = {"type": "string", "format": "uuid"}
_CURSOR: Final = {"type": "string"}
_CURSOR_EXAMPLE: Final = f"{examples.MESSAGE}:5"

PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "message_id": {
        "name": "message_id",
        "in": "path",
        "required": True,
        "description": "A reply of the person.",
        "schema": _UUID,
        "example": examples.MESSAGE,
    },
    "session_id": {
        "name": "session_id",
        "in": "path",
        "required": True,
        "description": "A session of the person.",
        "schema": _UUID,
        "example": examples.SESSION,
    },
    "key_id": {
        "name": "key_id",
        "in": "path",
        "required": True,
        "description": "WhatsApp's id of a person's message, or of one that was sent.",
        "schema": {"type": "string"},
        "example": examples.WHATSAPP_MESSAGE,
    },
    "event": {
        "name": "event",
        "in": "path",
        "required": True,
        "description": "The event's name as Evolution writes it in a path.",
        "schema": {"type": "string"},
        "example": "messages-upsert",
    },
}

HEADERS: Final[dict[str, dict[str, Any]]] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and body of one person give the same reply and "
        "one model call, however many requests come at once.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_KEY_CHARS,
            "pattern": "^[ -~]+$",
        },
        "example": "6f1c2d34-reconnect",
    },
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The `id` of the last event that was seen.",
        "schema": _CURSOR,
        "example": _CURSOR_EXAMPLE,
    },
    "after": {
        "name": "after",
        "in": "query",
        "description": "The same as `Last-Event-ID`, which goes before it.",
        "schema": _CURSOR,
        "example": _CURSOR_EXAMPLE,
    },
}

STREAM_HEADERS: Final[dict[str, Any]] = {
    "Viva-Message-Id": {
        "description": "The reply's id.",
        "schema": _UUID,
    },
    "Content-Location": {
        "description": "The URL to come back to.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
}


def query_parameters(query: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    """Make the parameters that are the fields of `query`."""
    if query is None:
        return []
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.pop("description"),
            "schema": _without_null(schema),
        }
        for name, schema in query_schemas(query).items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Take out what a query cannot say: a parameter is missing instead."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        return schema
    [kind] = kinds
    return {**kind}
