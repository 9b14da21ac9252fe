"""A value for each parameter of sql/queries, of the type that the code sends."""

from __future__ import annotations

from viva_server.ids import new_id

ID = new_id()

VALUES: dict[str, object] = {
    "are_known": [True],
    "are_read": [True],
    "are_trusted": [True],
    "answers": [True],
    "ask": True,
    "before_seq": 2**31 - 1,
    "bodies": ["{}"],
    "body_sha256": b"\0" * 32,
    "channel": "web",
    "chats": ["5511999999999@s.whatsapp.net"],
    "client_check_ms": 2000,
    "content": "Olá",
    "dedupe_keys": ["00" * 32],
    "deliveries": [1],
    "end_requested": "stopped",
    "error_codes": ["upstream_timeout"],
    "errors_are_final": [False],
    "events": ["messages.upsert"],
    "expected_count": 0,
    "far_reader_seconds": 3.0,
    "finish_reason": "crashed",
    "finish_reasons": ["stop"],
    "forms": ["{}"],
    "frozen_seconds": 15.0,
    "headers": ["{}"],
    "idle_in_transaction_ms": 10000,
    "ids": [ID],
    "instances": ["viva"],
    "key": "a-key",
    "kinds": ["message"],
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
    "owner": ID,
    "page_size": 20,
    "person": "ana",
    "process_id": ID,
    "session_id": ID,
    "skipped": 0,
    "sole": False,
    "starts": [0],
    "statement_timeout_ms": 6000,
    "statuses": ["complete"],
    "tails": ["/messages-upsert"],
    "texts": ["Olá"],
    "title": "Olá",
    "user_message_id": ID,
    "waited": [0.5],
}

NULLABLE = frozenset({"chats", "error_codes", "key", "mode", "session_id"})
"""What may be NULL, or an array of NULL alone."""
