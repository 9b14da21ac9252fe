"""Handlers for those who operate the server: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from viva_server.api import wire
from viva_server.api.problems import Problem
from viva_server.api.request import IdentifyCaller, is_local
from viva_server.auth import require_scope
from viva_server.metrics import Metrics
from viva_server.services import Services

ADMIN_SCOPE = "admin"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """New work can be taken."""

    status: Literal["ready"] = "ready"


class MetricsText:
    """The metrics, as text."""

    media_type: ClassVar = CONTENT_TYPE_LATEST.partition(";")[0]


class Document:
    """OpenAPI 3.1."""

    media_type: ClassVar = "application/json"


class OperationHandlers:
    """What this server is and how it is."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify
        self._metrics = Metrics(services)
        self._document = b""
        # Set by the routes, which it describes.
        self.document: Callable[[], Mapping[str, Any]] = dict

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Say that the process runs.

        200 as long as it does, whatever the database does.
        """
        return web.json_response(body=wire.to_json(Health()))

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Say whether new work can be taken."""
        if self._services.is_ready:
            return web.json_response(body=wire.to_json(Readiness()))
        raise Problem(
            "not_ready",
            "The server is stopping, or its database is away.",
            headers={"Retry-After": "1"},
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Show Prometheus' metrics.

        To this machine, or to a token with scope `admin`; 404 where `VIVA_METRICS` is
        0.
        """
        config = self._services.config
        if not config.metrics:
            raise web.HTTPNotFound
        if not is_local(request, config.trusted_proxies):
            require_scope(await self._identify(request), ADMIN_SCOPE)
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        """Show this document."""
        if not self._document:
            self._document = wire.to_json(self.document())
        return web.json_response(body=self._document)
