"""Ids of rows, made by the process that inserts."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562 § 5.7): ids made together lie together in an index.

    The time in it is a hint for locality; nothing is ever ordered or judged by it.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(UUID(int=value))
