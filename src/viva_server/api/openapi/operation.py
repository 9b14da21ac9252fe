"""What the document says of one method of one path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

BODY_CODES: Final = (
    "bad_body",
    "empty_body",
    "invalid_utf8",
    "invalid_json",
    "not_an_object",
    "duplicate_key",
    "invalid_number",
    "invalid_text",
    "too_deep",
    "too_many_values",
    "request_timeout",
    "too_large",
    "unsupported_media_type",
    "validation_error",
)
"""What may be wrong with any JSON body."""

Access = Literal["all", "person", "admin", "local", "webhook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One good answer; `schemas` are names among the components, any of them."""

    description: str
    status: int = 200
    media_type: str = JSON
    schemas: tuple[str, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The body of a request; without a schema any JSON object."""

    schema: str | None
    examples: Mapping[str, Any]
    is_required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    `query` is a type whose fields are the parameters; `headers` and `codes` are names
    in the lists of the document. With `has_head` HEAD gives the same without a body.
    """

    id: str
    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    access: Access
    headers: tuple[str, ...] = ()
    query: type[msgspec.Struct] | None = None
    body: Body | None = None
    answers: tuple[Answer, ...]
    codes: tuple[str, ...] = ()
    has_head: bool = False
