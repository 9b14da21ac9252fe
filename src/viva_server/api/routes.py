"""The one table of routes, and adding them to an application."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from viva_server import sse
from viva_server.api import chat, operations, operator, sessions, webhook
from viva_server.api.edge import Edge, Group, Route, Router
from viva_server.api.openapi import make_document
from viva_server.api.problems import FAILURES
from viva_server.api.request import IdentifyCaller, as_person
from viva_server.services import Services

_STARTS_REPLY: Final = ("reply_in_progress", "reply_pending", "too_many_replies")

_CHAT: Final = Group(
    "chat",
    chat.ChatHandlers,
    (
        Route(
            id="ask",
            method="post",
            path="/viva/chat",
            handler=chat.ChatHandlers.ask,
            access="person",
            headers=chat.ChatHeaders,
            body=chat.ChatRequest,
            answer=(chat.ChatAnswer,),
            codes=(*_STARTS_REPLY, *FAILURES),
        ),
        Route(
            id="stream",
            method="post",
            path="/viva/chat/stream",
            handler=chat.ChatHandlers.stream,
            access="person",
            headers=chat.ChatHeaders,
            body=chat.ChatRequest,
            answer=(sse.ServerSentEvent,),
            codes=_STARTS_REPLY,
        ),
        Route(
            id="resume",
            method="get",
            path="/viva/chat/stream/{message_id}",
            handler=chat.ChatHandlers.resume,
            access="person",
            headers=chat.ResumeHeaders,
            query=chat.ResumeQuery,
            answer=(sse.ServerSentEvent,),
            no_content="The cursor ends in `:end`: all is there.",
        ),
        Route(
            id="stop",
            method="post",
            path="/viva/chat/stream/{message_id}/stop",
            handler=chat.ChatHandlers.stop,
            access="person",
            answer=(sessions.MessageItem,),
        ),
        Route(
            id="again",
            method="post",
            path="/viva/chat/stream/{message_id}/again",
            handler=chat.ChatHandlers.again,
            access="person",
            headers=chat.ChatHeaders,
            answer=(sse.ServerSentEvent,),
            codes=(*_STARTS_REPLY, "not_newest"),
        ),
    ),
)

_SESSIONS: Final = Group(
    "sessions",
    sessions.SessionHandlers,
    (
        Route(
            id="snapshot",
            method="get",
            path="/viva/chat/snapshot",
            handler=sessions.SessionHandlers.snapshot,
            access="person",
            query=sessions.SnapshotQuery,
            answer=(sessions.Snapshot,),
            has_head=True,
        ),
        Route(
            id="list_sessions",
            method="get",
            path="/viva/chat/sessions",
            handler=sessions.SessionHandlers.list,
            access="person",
            query=sessions.SessionsQuery,
            answer=(sessions.SessionPage,),
            has_head=True,
        ),
        Route(
            id="add_session",
            method="post",
            path="/viva/chat/session/new",
            handler=sessions.SessionHandlers.add,
            access="person",
            body=sessions.NewSessionRequest,
            is_body_optional=True,
            answer=(sessions.Snapshot,),
        ),
        Route(
            id="delete_session",
            method="delete",
            path="/viva/chat/sessions/{session_id}",
            handler=sessions.SessionHandlers.delete,
            access="person",
            no_content="It is gone.",
        ),
    ),
)

_WEBHOOK: Final = Group(
    "webhook",
    webhook.WebhookHandlers,
    (
        Route(
            id="receive_webhook",
            method="post",
            path="/webhook/evolution" + webhook.ANY_TAIL,
            handler=webhook.WebhookHandlers.receive,
            access="webhook",
            body=dict,
            answer=(webhook.WebhookStored, webhook.WebhookIgnored),
        ),
        Route(
            id="describe_webhook",
            method="get",
            path="/webhook/evolution" + webhook.ANY_TAIL,
            handler=webhook.WebhookHandlers.describe,
            access="all",
            answer=(webhook.WebhookDescription,),
            has_head=True,
        ),
    ),
)

_OPERATOR: Final = Group(
    "operator",
    operator.OperatorHandlers,
    (
        Route(
            id="operator_overview",
            method="get",
            path="/viva/operator/overview",
            handler=operator.OperatorHandlers.overview,
            access="admin",
            answer=(operator.Overview,),
            has_head=True,
        ),
        Route(
            id="operator_dead",
            method="get",
            path="/viva/operator/dead",
            handler=operator.OperatorHandlers.dead,
            access="admin",
            query=operator.DeadQuery,
            answer=(operator.DeadPage,),
            has_head=True,
        ),
        Route(
            id="operator_replay",
            method="post",
            path="/viva/operator/dead/replay",
            handler=operator.OperatorHandlers.replay,
            access="admin",
            body=operator.ReplayRequest,
            answer=(operator.ReplayAnswer,),
        ),
        Route(
            id="operator_search",
            method="post",
            path="/viva/operator/messages/search",
            handler=operator.OperatorHandlers.search,
            access="admin",
            body=operator.SearchRequest,
            answer=(operator.SearchAnswer,),
        ),
    ),
)

_TRACE: Final = Group(
    "trace",
    operator.TraceHandler,
    (
        Route(
            id="trace",
            method="get",
            # Any character: what an id looks like is up to who delivers it.
            path="/whatsapp/trace/{key_id:[^/]+}",
            handler=operator.TraceHandler.show,
            access="admin",
            answer=(operator.TraceAnswer,),
        ),
    ),
)

_OPERATIONS: Final = Group(
    "operations",
    operations.OperationHandlers,
    (
        Route(
            id="health",
            method="get",
            path="/health",
            handler=operations.OperationHandlers.health,
            access="all",
            answer=(operations.Health,),
            has_head=True,
        ),
        Route(
            id="ready",
            method="get",
            path="/ready",
            handler=operations.OperationHandlers.ready,
            access="all",
            answer=(operations.Readiness,),
            codes=("not_ready",),
            has_head=True,
        ),
        Route(
            id="metrics",
            method="get",
            path="/metrics",
            handler=operations.OperationHandlers.metrics,
            access="local",
            answer=(operations.MetricsText,),
            codes=("not_found",),
        ),
        Route(
            id="openapi",
            method="get",
            path="/openapi.json",
            handler=operations.OperationHandlers.openapi,
            access="all",
            answer=(operations.Document,),
            has_head=True,
        ),
    ),
    is_at_root=True,
)

GROUPS: Final = (_CHAT, _SESSIONS, _WEBHOOK, _OPERATOR, _TRACE, _OPERATIONS)


def add_routes(
    app: web.Application,
    services: Services,
    identify: IdentifyCaller,
    *,
    prefix: str,
) -> None:
    """Add all routes of one viva_server below a prefix."""
    config = services.config
    edge = Edge(
        trusted_proxies=config.trusted_proxies, cors_origins=config.cors_origins
    )
    router = Router(app, edge, prefix)
    person = as_person(identify)
    talk = chat.ChatHandlers(services.chat, person, edge)
    talk.resume_route = router.add_group(_CHAT, talk)["resume"]
    router.add_group(_SESSIONS, sessions.SessionHandlers(services.sessions, person))
    hooks = webhook.WebhookHandlers(
        config, services.inbox, services.heavy_bodies, services.whatsapp_counters
    )
    router.add_group(_WEBHOOK, hooks)
    router.add_group(_OPERATOR, operator.OperatorHandlers(services, identify))
    router.add_group(_TRACE, operator.TraceHandler(services, identify))
    operating = operations.OperationHandlers(services, identify)
    document = router.add_group(_OPERATIONS, operating)["openapi"]
    operating.document = lambda: make_document(
        GROUPS, str(document.url_for()).removesuffix("/openapi.json") or "/"
    )


def add_root_operations(
    app: web.Application,
    services: Services,
    identify: IdentifyCaller,
    *,
    prefix: str,
) -> None:
    """Add the operators' routes also without the prefix, for a standalone server."""
    edge = Edge(trusted_proxies=services.config.trusted_proxies)
    operating = operations.OperationHandlers(services, identify)
    operating.document = lambda: make_document(GROUPS, prefix or "/")
    Router(app, edge, "").add_group(_OPERATIONS, operating)
