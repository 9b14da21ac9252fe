"""A value for each parameter of sql/queries, of the type that the code sends."""

from __future__ import annotations

import json

from viva_server.ids import new_id

ID = new_id()

_DELIVERY = [
    ID, "00" * 32, "viva", "call", True, "call", False, True, None, None, "/call",
    {}, {}, {}, 0.5, 1,
]  # fmt: skip

VALUES: dict[str, object] = {
    "action": "erase",
    "after_at": "-infinity",
    "after_id": ID,
    "after_key": "",
    "after_seq": 0,
    "are_read": [True],
    "ask": True,
    "audit_id": ID,
    "batch": 100,
    "before_seq": 2**31 - 1,
    "body_sha256": b"\0" * 32,
    "channel": "web",
    "chunks": json.dumps([[ID, 0, "Olá"]]),
    "client_check_ms": 2000,
    "content": "Olá",
    "counts": "{}",
    "deliveries": json.dumps([_DELIVERY]),
    "end_requested": "stopped",
    "expected_count": 0,
    "far_reader_seconds": 3.0,
    "finish_reason": "crashed",
    "frozen_seconds": 15.0,
    "idle_in_transaction_ms": 10000,
    "ids": [ID],
    "instance": "viva",
    "jids": ["5511988887777@s.whatsapp.net"],
    "key": "a-key",
    "key_seconds": 86400.0,
    "known": [0],
    "late_seconds": 1.0,
    "live_limit": 4,
    "lock_key": 2**62,
    "lock_timeout_ms": 2000,
    "message_id": ID,
    "message_ids": [ID],
    "messages": 20,
    "meta": "{}",
    "mode": "padrao",
    "most": 200,
    "numbers": "(^|[^0-9])(5511988887777)([^0-9]|$)",
    "old_seconds": 86400.0,
    "owner": ID,
    "page_size": 20,
    "person": "ana",
    "person_hmac": b"\0" * 32,
    "process_id": ID,
    "replies": json.dumps([[ID, "Olá", "complete", "stop", None, False]]),
    "session_id": ID,
    "skipped": 0,
    "sole": False,
    "statement_timeout_ms": 6000,
    "title": "Olá",
    "user_message_id": ID,
}

NULLABLE = frozenset({"key", "mode", "person_hmac", "session_id"})
"""What may be NULL, or an array of NULL alone."""
