"""A value for each parameter of sql/queries, of the type that the code sends."""

from __future__ import annotations

import json

from viva_server.ids import new_id

ID = new_id()

_DELIVERY = [
    ID, "00" * 32, "viva", "call", True, "call", False, True, None, None, "/call",
    {}, {}, {}, 0.5, 1, True,
    [["3A9F", "1@s.whatsapp.net", "1@lid", "text", "oi", 1.5, None]],
]  # fmt: skip

VALUES: dict[str, object] = {
    "again_seconds": 1.0,
    "answers": 20,
    "are_read": [True],
    "ask": True,
    "before_seq": 2**31 - 1,
    "body_sha256": b"\0" * 32,
    "changed_at": 1.5,
    "channel": "web",
    "chats": 20,
    "chunks": json.dumps([[ID, 0, "Olá"]]),
    "client_check_ms": 2000,
    "content": "Olá",
    "debounce_seconds": 2.0,
    "deliveries": json.dumps([_DELIVERY]),
    "due_seconds": 1.0,
    "end_requested": "stopped",
    "error": "upstream_error",
    "expected_count": 0,
    "far_reader_seconds": 3.0,
    "finish_reason": "crashed",
    "frozen_seconds": 15.0,
    "greeting_seconds": 3.0,
    "handover_seconds": 1800.0,
    "idle_in_transaction_ms": 10000,
    "inbox_id": ID,
    "inbox_ids": [ID],
    "instance": "loja",
    "jid": "1@s.whatsapp.net",
    "key": "a-key",
    "known": [0],
    "late_seconds": 1.0,
    "lid": "1@lid",
    "lid_person": "loja/1@lid",
    "live_limit": 4,
    "lock_key": 2**62,
    "lock_timeout_ms": 2000,
    "message_id": ID,
    "message_ids": [ID],
    "messages": 20,
    "meta": "{}",
    "mode": "padrao",
    "most": 200,
    "outbox_id": ID,
    "outbox_ids": [ID],
    "outcome": "sent",
    "owner": ID,
    "page_size": 20,
    "person": "ana",
    "problem": "it is odd",
    "process_id": ID,
    "receipts": json.dumps([["loja", "3A9F", "READ", 5]]),
    "replies": json.dumps([[ID, "Olá", "complete", "stop", None, False]]),
    "reply_id": ID,
    "rows": 100,
    "sends": 20,
    "session_id": ID,
    "settle_seconds": 60.0,
    "skipped": 0,
    "sole": False,
    "spoken_at": 1.5,
    "state": "dead",
    "statement_timeout_ms": 6000,
    "statuses": ["complete"],
    "target_id": "3A9F",
    "text": "oi",
    "title": "Olá",
    "turn_id": ID,
    "turn_ids": [ID],
    "user_message_id": ID,
    "why_not": "old",
    "window_seconds": 600.0,
}

NULLABLE = frozenset({"again_seconds", "error", "key", "mode", "session_id", "text"})
"""What may be NULL, or an array of NULL alone."""
