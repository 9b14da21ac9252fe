"""Examples of requests and answers, by the name of their operation or schema."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Any, Final

from viva_server import sse
from viva_server.api.problems import RETRYABLE, TYPE_PREFIX

SESSION: Final = "0199c3a0-5f1e-7c44-9a0e-2b7f6d1c8e55"
USER_MESSAGE: Final = "0199c3a0-6a02-7d10-8f3b-51c0a9e4d7b2"
MESSAGE: Final = "0199c3a0-6a03-7b9e-b6a1-0f2d3c4e5a69"
WHATSAPP_MESSAGE: Final = "3EB0C767D097B7C7A1F2"

_AT = "2026-11-22T14:03:07.412Z"
_TEXT = "Olá, Ana!"
_SHA256 = hashlib.sha256(_TEXT.encode()).hexdigest()

CHAT_REQUEST: Final = {"mensagem": "Bom dia!", "contexto": []}

CHAT_ANSWER: Final = {
    "resposta": _TEXT,
    "session_id": SESSION,
    "message_id": MESSAGE,
    "user_message_id": USER_MESSAGE,
    "status": "complete",
    "finish_reason": "stop",
    "midia": [],
}

_QUESTION: dict[str, Any] = {
    "id": USER_MESSAGE,
    "seq": 1,
    "tipo": "usuario",
    "conteudo": "Bom dia!",
    "modo": None,
    "anexos": [],
    "meta": {"contexto_len": 0},
    "status": "complete",
    "finish_reason": None,
    "created_at": _AT,
}

REPLY: Final[dict[str, Any]] = {
    "id": MESSAGE,
    "seq": 2,
    "tipo": "ia",
    "conteudo": _TEXT,
    "modo": None,
    "anexos": [],
    "meta": {},
    "status": "complete",
    "finish_reason": "stop",
    "created_at": _AT,
}

STOPPED: Final = {
    **REPLY,
    "conteudo": "Olá, ",
    "status": "partial",
    "finish_reason": "stopped",
}

SNAPSHOT: Final = {
    "session_id": SESSION,
    "modo": None,
    "messages": [_QUESTION, REPLY],
    "has_more": False,
    "active_reply": None,
}

NEW_SNAPSHOT: Final = {**SNAPSHOT, "modo": "curto", "messages": []}

SESSIONS: Final = {
    "items": [
        {
            "id": SESSION,
            "modo": None,
            "titulo": "Bom dia!",
            "channel": "web",
            "message_count": 2,
            "created_at": _AT,
            "updated_at": _AT,
            "last_message_at": _AT,
        }
    ],
    "total": 1,
    "page": 1,
    "page_size": 20,
}

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

WEBHOOK_STORED: Final = {
    "status": "received",
    "processed": True,
    "event": "messages.upsert",
    "duplicate": False,
}

METRICS: Final = "# HELP viva_readers Readers in this process.\nviva_readers 12.0\n"


def _accepted(offset: int, *, resumed: bool) -> bytes:
    return sse.accepted_event(
        session_id=SESSION,
        message_id=MESSAGE,
        user_message_id=USER_MESSAGE,
        offset=offset,
        resumed=resumed,
    )


_DONE = sse.done_event(
    session_id=SESSION,
    message_id=MESSAGE,
    status="complete",
    finish_reason="stop",
    chars=len(_TEXT),
    sha256=_SHA256,
    message_count=2,
)

STREAM: Final = b"".join(
    (
        _accepted(0, resumed=False),
        sse.content_event(MESSAGE, 5, _TEXT[:5]),
        sse.content_event(MESSAGE, 9, _TEXT[5:]),
        _DONE,
    )
).decode()

RESUMED_STREAM: Final = b"".join(
    (
        _accepted(5, resumed=True),
        sse.content_event(MESSAGE, 9, _TEXT[5:]),
        _DONE,
    )
).decode()

_TURN = "0199c3a0-6b10-7c55-8d21-3f4a5b6c7d8e"

TRACE: Final[dict[str, Any]] = {
    "message_id": WHATSAPP_MESSAGE,
    "deliveries": [
        {
            "instance": "loja",
            "event": "messages.upsert",
            "kind": "message",
            "trusted": True,
            "received_at": _AT,
            "deliveries": 2,
            "redelivered_at": [_AT],
            "receipt": None,
            "problem": None,
        }
    ],
    "messages": [
        {
            "instance": "loja",
            "kind": "text",
            "sent_at": _AT,
            "stored_at": _AT,
            "why_not": None,
            "edited_at": None,
            "deleted_at": None,
            "turn_id": _TURN,
        }
    ],
    "turns": [
        {
            "id": _TURN,
            "state": "answered",
            "runs": 1,
            "error": None,
            "created_at": _AT,
            "ended_at": _AT,
            "replies": [
                {
                    "id": MESSAGE,
                    "status": "complete",
                    "finish_reason": "stop",
                    "error_code": None,
                    "created_at": _AT,
                    "chars": len(_TEXT),
                }
            ],
            "sends": [
                {
                    "id": "0199c3a0-6c20-7d66-9e32-4a5b6c7d8e9f",
                    "state": "sent",
                    "error": None,
                    "message_id": "BAE5F4A6C0B1D2E3",
                    "receipt": "READ",
                    "attempts": [{"at": _AT, "outcome": "sent", "reason": None}],
                    "created_at": _AT,
                    "sent_at": _AT,
                    "receipts": [{"receipt": "READ", "at": _AT}],
                }
            ],
        }
    ],
}

FAILED_STREAM: Final = (
    _accepted(0, resumed=False)
    + sse.error_event(
        error="A resposta demorou demais para começar. Tente de novo.",
        code="upstream_timeout",
        retryable=True,
        session_id=SESSION,
        message_id=MESSAGE,
    )
).decode()


def problem(status: int, code: str) -> dict[str, Any]:
    """Make the body of a problem."""
    return {
        "type": f"{TYPE_PREFIX}{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "A sentence for people.",
        "code": code,
        "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "retryable": status in RETRYABLE,
        **_MEMBERS.get(code, {}),
    }


_MEMBERS: Final[dict[str, dict[str, Any]]] = {
    "reply_in_progress": {
        "message_id": MESSAGE,
        "resume_url": f"/api/v1/viva/chat/stream/{MESSAGE}",
    },
    "upstream_timeout": {"message_id": MESSAGE},
    "validation_error": {
        "errors": [{"pointer": "/mensagem", "message": "must not be blank"}]
    },
}
