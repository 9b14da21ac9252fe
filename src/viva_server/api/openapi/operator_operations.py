"""The operations behind the operator's page."""

from __future__ import annotations

from typing import Any, Final

from viva_server.api.openapi import examples
from viva_server.api.openapi.operation import BODY_CODES, Answer, Body, Operation
from viva_server.api.operator_answers import DeadQuery

_AT: Final = "2026-11-22T14:03:07.412Z"
_PROCESS: Final = "0199c3a0-1a2b-7c3d-8e4f-5a6b7c8d9e0f"
_DEAD: Final = "0199c3a0-6c21-7d66-9e32-4a5b6c7d8e90"

_MESSAGE: Final = {
    "message_id": examples.WHATSAPP_MESSAGE,
    "instance": "loja",
    "chat": "5511999998888@s.whatsapp.net",
    "kind": "text",
    "sent_at": _AT,
    "state": "sent",
    "reason": None,
    "receipt": "READ",
}

_OVERVIEW: Final[dict[str, Any]] = {
    "now": _AT,
    "process_id": _PROCESS,
    "processes": [
        {
            "id": _PROCESS,
            "version": "0.1.0",
            "host": "vps-1",
            "pid": 4711,
            "started_at": _AT,
            "silent_seconds": 0.31,
            "dead_at": None,
            "live_replies": 1,
            "readers": 1,
        }
    ],
    "replies": [
        {
            "id": examples.MESSAGE,
            "channel": "web",
            "process_id": _PROCESS,
            "created_at": _AT,
            "chars": 9,
            "left_at": None,
            "far_processes": 0,
        }
    ],
    "webhooks": {
        "first_minute": "2026-11-22T13:34:00Z",
        "is_capped": False,
        "events": [{"event": "messages.upsert", "counts": [0] * 29 + [3]}],
    },
    "work": {
        "turns_due": 0,
        "turns_due_since": None,
        "turns_later": 1,
        "turns_running": 1,
        "parts_waiting": 0,
        "news_waiting": 0,
        "dead_turns": 0,
        "dead_parts": 1,
        "dead_news": 0,
        "counted_up_to": 1000,
    },
    "messages": [_MESSAGE],
}

_DEAD_PAGE: Final = {
    "items": [
        {
            "id": _DEAD,
            "kind": "send",
            "instance": "loja",
            "chat": "5511999998888@s.whatsapp.net",
            "state": "dead",
            "reason": "not_on_whatsapp",
            "since": _AT,
            "message_id": examples.WHATSAPP_MESSAGE,
        }
    ],
    "next": None,
}

_REFUSALS: Final = ("unauthorized", "insufficient_scope", "unavailable")

OPERATOR: Final = (
    Operation(
        id="operator_overview",
        method="get",
        path="/viva/operator/overview",
        tag="operator",
        summary="Show how the whole service is now",
        description="Of all processes, from the database: processes, the live replies "
        "that have run longest, webhooks per minute, what waits, the newest messages "
        "on WhatsApp. It has phones, and no content.",
        access="admin",
        answers=(
            Answer(
                description="How it is.",
                schemas=("Overview",),
                examples={"overview": _OVERVIEW},
            ),
        ),
        codes=_REFUSALS,
        has_head=True,
    ),
    Operation(
        id="operator_dead",
        method="get",
        path="/viva/operator/dead",
        tag="operator",
        summary="List what could not be answered, sent or applied",
        description="Turns, parts and news; parts of unknown outcome among them.",
        access="admin",
        query=DeadQuery,
        answers=(
            Answer(
                description="One page, the newest first.",
                schemas=("DeadPage",),
                examples={"page": _DEAD_PAGE},
            ),
        ),
        codes=("bad_query", *_REFUSALS),
        has_head=True,
    ),
    Operation(
        id="operator_replay",
        method="post",
        path="/viva/operator/dead/replay",
        tag="operator",
        summary="Do some of the dead again",
        description="A part of state `unknown` may arrive twice then. After a failure "
        "in the midst the same request does the rest.",
        access="admin",
        body=Body(schema="ReplayRequest", examples={"one": {"ids": [_DEAD]}}),
        answers=(
            Answer(
                description="What became of each.",
                schemas=("ReplayAnswer",),
                examples={"done": {"items": [{"id": _DEAD, "outcome": "replayed"}]}},
            ),
        ),
        codes=(*BODY_CODES, *_REFUSALS),
    ),
    Operation(
        id="operator_search",
        method="post",
        path="/viva/operator/messages/search",
        tag="operator",
        summary="Find the newest messages of a phone",
        description="The phone is in the body, since an address ends up in logs.",
        access="admin",
        body=Body(
            schema="SearchRequest", examples={"phone": {"phone": "(11) 99999-8888"}}
        ),
        answers=(
            Answer(
                description="Twenty at most; none where the phone is not known.",
                schemas=("SearchAnswer",),
                examples={"messages": {"messages": [_MESSAGE]}},
            ),
        ),
        codes=(*BODY_CODES, *_REFUSALS),
    ),
)
