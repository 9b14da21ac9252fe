"""Who sends a request: an identity, and the person that it is in the chat."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable

from aiohttp import web

from viva_server.auth import Identity, JwtAuth, checked_user
from viva_server.config import Config
from viva_server.errors import ConfigError
from viva_server.store.people import Person

Authenticate = Callable[
    [web.Request], str | Identity | Awaitable[str] | Awaitable[Identity]
]
"""A host's check: gives the id of the user who sent a request, or raises AuthError.

An id has 1 to 255 characters and no control characters; another one, or None, is
answered like AuthError. An `Identity` in its place carries scopes too: `admin` opens
the operator's routes.
"""

IdentifyCaller = Callable[[web.Request], Awaitable[Identity]]
"""Gives who sends a request; raises AuthError."""

IdentifyPerson = Callable[[web.Request], Awaitable[Person]]


def as_person(identify: IdentifyCaller) -> IdentifyPerson:
    """Make the look-up of the person in the web chat."""

    async def identify_person(request: web.Request) -> Person:
        return Person("web", (await identify(request)).user_id)

    return identify_person


def identifier(config: Config, authenticate: Authenticate | None) -> IdentifyCaller:
    """Make the check of requests: the host's, or the Bearer token's."""
    if authenticate is None:
        tokens = _token_auth(config)

        async def by_token(request: web.Request) -> Identity:
            return tokens().verify(request.headers.getall("Authorization", []))

        return by_token

    async def by_host(request: web.Request) -> Identity:
        answer = authenticate(request)
        user_id: object = await answer if inspect.isawaitable(answer) else answer
        if isinstance(user_id, Identity):
            return Identity(checked_user(user_id.user_id), frozenset(user_id.scopes))
        if user_id is not None and not isinstance(user_id, str):
            # A defect of the host: 500 and a traceback, not a 401 that hides it.
            kind = type(user_id).__name__
            raise TypeError(f"authenticate gave a {kind} and not a text")
        return Identity(checked_user(user_id))

    return by_host


def _token_auth(config: Config) -> Callable[[], JwtAuth]:
    """Make the check of tokens; without a setting the secret is in the data folder."""
    if config.jwt_secret:
        auth = JwtAuth(config.jwt_secret)
        return lambda: auth
    if config.database_url is not None:
        raise ConfigError(["VIVA_JWT_SECRET is required with VIVA_DATABASE_URL"])
    # Made at the first request: `setup` touches no disk.
    return functools.cache(lambda: JwtAuth([generated_secret(config)]))


def generated_secret(config: Config) -> str:
    """Load the signing secret from the data folder, or make it there (mode 0600)."""
    from viva_server.store.data_folder import load_or_create_secret  # noqa: PLC0415

    return load_or_create_secret(config.data_dir / "jwt-secret")
