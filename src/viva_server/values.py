"""Ids, and the words by which a state is told, in the database and on the wire."""

from __future__ import annotations

import os
import time
from typing import Literal


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562 § 5.7): ids made together lie together in an index.

    The time in it is a hint for locality; nothing is ever ordered or judged by it.
    """
    time_hex = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10)
    random_hex = random.hex()
    variant = "89ab"[random[9] & 0x3]
    return (
        f"{time_hex[:8]}-{time_hex[8:]}-7{random_hex[:3]}-"
        f"{variant}{random_hex[3:6]}-{random_hex[6:18]}"
    )


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
