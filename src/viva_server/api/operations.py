"""Handlers for those who operate the server: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from viva_server.api import answers, wire
from viva_server.api.client import is_local
from viva_server.api.identity import IdentifyCaller
from viva_server.api.openapi.document import make_document
from viva_server.api.problems import Problem
from viva_server.auth import require_scope
from viva_server.metrics import Metrics
from viva_server.services import Services

ADMIN_SCOPE = "admin"


class OperationHandlers:
    """The routes that say what this server is and how it is."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify
        self._metrics = Metrics(services)
        self._document = b""
        # Set by the routes: the prefix, with that of a sub-application before it.
        self.base_path: Callable[[], str] = str

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Say that the process runs, whatever the database does."""
        return web.json_response(body=wire.to_json(answers.Health()))

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Say whether new work can be taken."""
        if self._services.is_ready:
            return web.json_response(body=wire.to_json(answers.Readiness()))
        raise Problem(
            "not_ready",
            "The server is stopping, or its database is away.",
            headers={"Retry-After": "1"},
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Show Prometheus' metrics, to this machine or to an administrator."""
        config = self._services.config
        if not config.metrics:
            raise web.HTTPNotFound
        if not is_local(request, config.trusted_proxies):
            require_scope(await self._identify(request), ADMIN_SCOPE)
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        """Show what all routes take and give, as OpenAPI 3.1."""
        if not self._document:
            self._document = wire.to_json(make_document(self.base_path() or "/"))
        return web.json_response(body=self._document)
