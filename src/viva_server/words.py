"""The words by which a reply's state is told, in the database and on the wire."""

from __future__ import annotations

from typing import Literal

Status = Literal["streaming", "complete", "partial", "failed"]

FinishReason = Literal[
    "stop",
    "length",
    "content_filter",
    "stopped",
    "disconnected",
    "superseded",
    "shutdown",
    "crashed",
    "upstream_error",
    "limit",
]

EndRequest = Literal["stopped", "superseded"]
"""The ends that another process may ask a reply's owner for."""

Channel = Literal["web", "whatsapp"]
