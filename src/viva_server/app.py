"""Putting viva_server into an aiohttp application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from viva_server.api.edge import Edge
from viva_server.api.request import Authenticate, identifier
from viva_server.api.routes import add_routes
from viva_server.config import Config
from viva_server.responders import Responder
from viva_server.services import Services
from viva_server.web.pages import add_page

SERVICES: web.AppKey[Services] = web.AppKey("viva_server", Services)
"""Where an application keeps its first viva_server; `setup` returns each of them."""

PREFIX = "/api/v1"


def setup(
    app: web.Application,
    config: Config | None = None,
    /,
    *,
    respond: Responder | None = None,
    authenticate: Authenticate | None = None,
    prefix: str = PREFIX,
) -> Services:
    """Add viva_server to a host's application, below `prefix`.

    Routes, one cleanup context and one `on_shutdown` handler are added; the host's
    middlewares, signals and other routes stay as they are. Call it once per prefix,
    before the application starts. Settings come from the environment by default.

    `authenticate`, sync or async, takes the place of the Bearer token.

    Raises:
        ConfigError: the settings cannot be used. Later, when the application starts,
            also what `Services.running` raises.
    """
    config = Config.from_env() if config is None else config
    services = Services(config, respond)
    app.cleanup_ctx.append(_lifespan(services))
    app.on_shutdown.append(_drain(services))
    identify = identifier(config, authenticate)
    add_routes(app, services, identify, prefix=prefix.rstrip("/"))
    app.setdefault(SERVICES, services)
    return services


def create_app(
    config: Config | None = None,
    /,
    *,
    respond: Responder | None = None,
    authenticate: Authenticate | None = None,
    prefix: str = PREFIX,
) -> web.Application:
    """Make an application of its own, to be run or added as a sub-application.

    It answers unknown paths and methods with problem+json too, which `setup` leaves to
    the host. Arguments and errors are those of `setup`.
    """
    config = Config.from_env() if config is None else config
    edge = Edge(
        trusted_proxies=config.trusted_proxies, cors_origins=config.cors_origins
    )
    app = web.Application(middlewares=[edge.middleware()])
    setup(app, config, respond=respond, authenticate=authenticate, prefix=prefix)
    return app


def mount_page(
    app: web.Application, /, *, path: str = "/", api_prefix: str = PREFIX
) -> None:
    """Serve the web chat at `path` of an application that `setup` was called with.

    `api_prefix` is the `prefix` of that call. In a sub-application both are below the
    sub-application's own prefix. A person comes in by a link with `#token=…`; where
    `authenticate` reads a cookie, by the path alone.

    Raises:
        ValueError: the path does not begin with a slash.
    """
    add_page(app, path=path, api_prefix=api_prefix)


def mount_operator_page(
    app: web.Application, /, *, path: str = "/operator", api_prefix: str = PREFIX
) -> None:
    """Serve the operator's page as `mount_page` serves the web chat.

    It needs a token with scope `admin`, or an `authenticate` that gives an `Identity`
    with it.

    Raises:
        ValueError: the path does not begin with a slash.
    """
    add_page(app, path=path, api_prefix=api_prefix, page="operator")


def _lifespan(services: Services) -> Callable[[web.Application], AsyncIterator[None]]:
    async def lifespan(_: web.Application) -> AsyncIterator[None]:
        async with services.running():
            yield

    return lifespan


def _drain(services: Services) -> Callable[[web.Application], Awaitable[None]]:
    async def drain(_: web.Application) -> None:
        await services.drain()

    return drain
