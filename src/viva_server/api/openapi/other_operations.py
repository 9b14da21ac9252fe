"""The operations of Evolution API and of those who operate the server."""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST

from viva_server.api.openapi import examples
from viva_server.api.openapi.operation import Answer, Body, Operation

METRICS_TEXT: Final = CONTENT_TYPE_LATEST.partition(";")[0]

_WEBHOOK_ANSWERS = (
    Answer(
        description="The event is committed, or must not be sent again.",
        schemas=("WebhookStored", "WebhookIgnored"),
        examples={"stored": examples.WEBHOOK_STORED},
    ),
)
_WEBHOOK_CODES = (
    "invalid_json",
    "content_encoding",
    "bad_body",
    "wrong_secret",
    "unavailable",
)
_WEBHOOK_BODY = Body(schema=None, examples={"message": examples.WEBHOOK})
_DESCRIBED = (
    Answer(
        description="The webhook's URL is right.",
        schemas=("WebhookDescription",),
        examples={"description": {"status": "webhook ativo", "service": "evolution"}},
    ),
)

WEBHOOK: Final = (
    Operation(
        id="receive_webhook",
        method="post",
        path="/webhook/evolution",
        tag="webhook",
        summary="Receive an event of Evolution API",
        description="Answered after the commit of the event, before any work on it. "
        "The secret may also be the body's `apikey`.",
        access="webhook",
        body=_WEBHOOK_BODY,
        answers=_WEBHOOK_ANSWERS,
        codes=_WEBHOOK_CODES,
    ),
    Operation(
        id="describe_webhook",
        method="get",
        path="/webhook/evolution",
        tag="webhook",
        summary="Say that the webhook's URL is right",
        access="all",
        answers=_DESCRIBED,
        has_head=True,
    ),
    Operation(
        id="receive_webhook_by_event",
        method="post",
        path="/webhook/evolution/{event}",
        tag="webhook",
        summary="Receive an event at a path of its own (`byEvents`)",
        description="`event` stands for anything, more segments among it.",
        access="webhook",
        body=_WEBHOOK_BODY,
        answers=_WEBHOOK_ANSWERS,
        codes=_WEBHOOK_CODES,
    ),
    Operation(
        id="describe_webhook_by_event",
        method="get",
        path="/webhook/evolution/{event}",
        tag="webhook",
        summary="Say that the webhook's URL is right",
        access="all",
        answers=_DESCRIBED,
        has_head=True,
    ),
)

_WITHOUT_PREFIX = "A standalone server has it without the prefix, too."

OPERATING: Final = (
    Operation(
        id="health",
        method="get",
        path="/health",
        tag="operations",
        summary="Say that the process runs",
        description=_WITHOUT_PREFIX,
        access="all",
        answers=(
            Answer(
                description="It runs, whatever the database does.",
                schemas=("Health",),
                examples={"health": {"status": "ok"}},
            ),
        ),
        has_head=True,
    ),
    Operation(
        id="ready",
        method="get",
        path="/ready",
        tag="operations",
        summary="Say whether new work can be taken",
        description=_WITHOUT_PREFIX,
        access="all",
        answers=(
            Answer(
                description="It can.",
                schemas=("Readiness",),
                examples={"readiness": {"status": "ready"}},
            ),
        ),
        codes=("not_ready",),
        has_head=True,
    ),
    Operation(
        id="metrics",
        method="get",
        path="/metrics",
        tag="operations",
        summary="Show Prometheus' metrics",
        description="To this machine, or to a token with scope `admin`; 404 where "
        f"`VIVA_METRICS` is 0. {_WITHOUT_PREFIX}",
        access="local",
        answers=(
            Answer(
                description="The metrics, as text.",
                media_type=METRICS_TEXT,
                examples={"metrics": examples.METRICS},
            ),
        ),
        codes=("unauthorized", "insufficient_scope", "not_found"),
    ),
    Operation(
        id="trace",
        method="get",
        path="/whatsapp/trace/{key_id}",
        tag="operations",
        summary="Show the way of a WhatsApp message",
        description="Everything with its time, and no content: deliveries, why it is "
        "not answered, its turn, replies, each attempt to send, Evolution's receipts.",
        access="admin",
        answers=(
            Answer(
                description="All that is known of it.",
                schemas=("TraceAnswer",),
                examples={"trace": examples.TRACE},
            ),
        ),
        codes=(
            "unauthorized",
            "insufficient_scope",
            "message_not_found",
            "unavailable",
        ),
    ),
    Operation(
        id="openapi",
        method="get",
        path="/openapi.json",
        tag="operations",
        summary="Show this document",
        description=_WITHOUT_PREFIX,
        access="all",
        answers=(Answer(description="OpenAPI 3.1."),),
        has_head=True,
    ),
)
