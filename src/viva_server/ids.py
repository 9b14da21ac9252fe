"""Ids of rows, made by the process that inserts."""

from __future__ import annotations

import os
import time


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
