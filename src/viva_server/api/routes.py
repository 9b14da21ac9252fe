"""The one table of routes."""

from __future__ import annotations

from aiohttp import web

from viva_server.api.chat import ChatHandlers
from viva_server.api.edge import Edge
from viva_server.api.identity import IdentifyCaller, as_person
from viva_server.api.operations import OperationHandlers
from viva_server.api.operator import OperatorHandlers
from viva_server.api.router import Router
from viva_server.api.sessions import SessionHandlers
from viva_server.api.trace import TraceHandler
from viva_server.api.webhook import ANY_TAIL, WebhookHandlers
from viva_server.services import Services

_DOCUMENT = "/openapi.json"


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
    _add_chat(router, ChatHandlers(services, person, edge))
    _add_sessions(router, SessionHandlers(services, person))
    webhook = WebhookHandlers(
        config, services.inbox, services.heavy_bodies, services.whatsapp_counters
    )
    router.add(
        "/webhook/evolution" + ANY_TAIL,
        post=webhook.receive,
        get=webhook.describe,
        head=webhook.describe,
    )
    trace = TraceHandler(services, identify)
    # Any character: what an id looks like is up to who delivers it.
    router.add("/whatsapp/trace/{key_id:[^/]+}", get=trace.show)
    _add_operator(router, OperatorHandlers(services, identify))
    operations = OperationHandlers(services, identify)
    document = _add_operations(router, operations)
    operations.base_path = lambda: str(document.url_for()).removesuffix(_DOCUMENT)


def _add_chat(router: Router, chat: ChatHandlers) -> None:
    router.add("/viva/chat", post=chat.ask)
    router.add("/viva/chat/stream", post=chat.stream)
    chat.resume_route = router.add("/viva/chat/stream/{message_id}", get=chat.resume)
    router.add("/viva/chat/stream/{message_id}/stop", post=chat.stop)
    router.add("/viva/chat/stream/{message_id}/again", post=chat.again)


def _add_sessions(router: Router, sessions: SessionHandlers) -> None:
    router.add("/viva/chat/snapshot", get=sessions.snapshot, head=sessions.snapshot)
    router.add("/viva/chat/sessions", get=sessions.list, head=sessions.list)
    router.add("/viva/chat/sessions/{session_id}", delete=sessions.delete)
    router.add("/viva/chat/session/new", post=sessions.add)


def _add_operator(router: Router, operator: OperatorHandlers) -> None:
    base = "/viva/operator"
    router.add(f"{base}/overview", get=operator.overview, head=operator.overview)
    router.add(f"{base}/dead", get=operator.dead, head=operator.dead)
    router.add(f"{base}/dead/replay", post=operator.replay)
    router.add(f"{base}/messages/search", post=operator.search)


def _add_operations(router: Router, operations: OperationHandlers) -> web.Resource:
    router.add("/health", get=operations.health, head=operations.health)
    router.add("/ready", get=operations.ready, head=operations.ready)
    router.add("/metrics", get=operations.metrics)
    return router.add(_DOCUMENT, get=operations.openapi, head=operations.openapi)


def add_root_operations(
    app: web.Application,
    services: Services,
    identify: IdentifyCaller,
    *,
    prefix: str,
) -> None:
    """Add the operators' routes also without the prefix, for a standalone server."""
    edge = Edge(trusted_proxies=services.config.trusted_proxies)
    operations = OperationHandlers(services, identify)
    operations.base_path = lambda: prefix
    _add_operations(Router(app, edge, ""), operations)
