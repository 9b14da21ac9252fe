"""Putting viva_server into an aiohttp application."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from viva_server.api.edge import problem_middleware
from viva_server.api.routes import add_routes
from viva_server.auth import Identity, JwtAuth
from viva_server.config import Config
from viva_server.errors import ConfigError
from viva_server.responders import Responder
from viva_server.services import Services

Authenticate = Callable[[web.Request], str | Awaitable[str]]
"""Gives the id of the user who sent a request, or raises `AuthError`."""

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
    identify = _identifier(config, authenticate)
    add_routes(app, services, identify, prefix=prefix)
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
    app = web.Application(middlewares=[problem_middleware])
    setup(app, config, respond=respond, authenticate=authenticate, prefix=prefix)
    return app


def _lifespan(services: Services) -> Callable[[web.Application], AsyncIterator[None]]:
    async def lifespan(_: web.Application) -> AsyncIterator[None]:
        async with services.running():
            yield

    return lifespan


def _drain(services: Services) -> Callable[[web.Application], Awaitable[None]]:
    async def drain(_: web.Application) -> None:
        await services.drain()

    return drain


def _identifier(
    config: Config, authenticate: Authenticate | None
) -> Callable[[web.Request], Awaitable[Identity]]:
    if authenticate is None:
        tokens = _token_auth(config)

        async def by_token(request: web.Request) -> Identity:
            return tokens().verify(request.headers.getall("Authorization", []))

        return by_token

    async def by_host(request: web.Request) -> Identity:
        answer = authenticate(request)
        user_id = await answer if inspect.isawaitable(answer) else answer
        return Identity(user_id)

    return by_host


def _token_auth(config: Config) -> Callable[[], JwtAuth]:
    """Make the check of tokens, with a secret from the data folder where none is set."""
    if config.jwt_secret:
        auth = JwtAuth(config.jwt_secret)
        return lambda: auth
    if config.database_url is not None:
        raise ConfigError(["VIVA_JWT_SECRET is required with VIVA_DATABASE_URL"])
    made: list[JwtAuth] = []

    def from_data_folder() -> JwtAuth:
        if not made:
            made.append(JwtAuth([generated_secret(config)]))
        return made[0]

    return from_data_folder


def generated_secret(config: Config) -> str:
    """Load the signing secret from the data folder, or make it there (mode 0600)."""
    from viva_server.store.data_folder import load_or_create_secret  # noqa: PLC0415

    return load_or_create_secret(config.data_dir / "jwt-secret")
