"""A request from outside: who sends it, from where, and its body within limits."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from aiohttp import HttpVersion11, web

from viva_server.api.problems import Problem
from viva_server.api.wire import parse_json
from viva_server.auth import Identity, JwtAuth, checked_user
from viva_server.config import Config, Network
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

Address = IPv4Address | IPv6Address

BODY_BYTES = 1024 * 1024
BODY_SECONDS = 30.0
SEND_BUFFER_BYTES = 128 * 1024
USER_TIMEOUT_MS = 20_000

_PROXY_HEADERS = ("X-Forwarded-For", "Forwarded", "Via")


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
    from viva_server.store.embedded.data_folder import load_or_create_secret  # noqa: PLC0415

    return load_or_create_secret(config.data_dir / "jwt-secret")


def client_address(request: web.BaseRequest, trusted: Sequence[Network] = ()) -> str:
    """Return the client's address, or "unknown" (a Unix socket has none).

    `X-Forwarded-For` is read from its end, where our own proxies write: up to the
    first address that is none of `trusted`. What stands before it may be forged.
    """
    peer = _address(request.remote or "")
    if peer is None:
        return "unknown"
    if not _is_in(peer, trusted):
        return str(peer)
    return str(_through_proxies(peer, _forwarded(request), trusted))


def is_local(request: web.BaseRequest, trusted: Sequence[Network] = ()) -> bool:
    """Tell whether the client is on this machine.

    A request through a proxy that is not in `trusted` is not: the proxy may well be
    on this machine and its client anywhere.
    """
    peer = _address(request.remote or "")
    if peer is None or not peer.is_loopback:
        return False
    if not _is_in(peer, trusted):
        return not any(name in request.headers for name in _PROXY_HEADERS)
    found = _address(client_address(request, trusted))
    return found is not None and found.is_loopback


def _through_proxies(
    peer: Address, forwarded: Sequence[str], trusted: Sequence[Network]
) -> Address:
    for word in reversed(forwarded):
        if (hop := _address(word)) is None:
            break
        peer = hop
        if not _is_in(hop, trusted):
            break
    return peer


def _forwarded(request: web.BaseRequest) -> list[str]:
    return ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")


def _address(word: str) -> Address | None:
    word = word.strip()
    return _parsed(word) or _parsed(_without_port(word))


def _parsed(word: str) -> Address | None:
    try:
        address = ip_address(word)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # Without its zone ("%eth0"), which is free text.
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _without_port(word: str) -> str:
    host, _, port = word.rpartition(":")
    if not port.isdigit():
        host = word
    return host.removeprefix("[").removesuffix("]")


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


async def read_json(
    request: web.Request,
    limit_bytes: int = BODY_BYTES,
    *,
    within_seconds: float = BODY_SECONDS,
    optional: bool = False,
) -> dict[str, Any]:
    """Read the JSON object that is the request's body.

    With `optional` a request without any body counts as one with `{}`.

    Raises:
        Problem: 415 for another type, charset or any content coding; 413 and 408
            for too much or too slow a body, and the connection then closes; 400 for
            what the strict decoder refuses.
        ConnectionError: the client left.
    """
    if optional and not request.body_exists:
        return {}
    _check_type(request)
    return parse_json(
        await read_body(request, limit_bytes, within_seconds=within_seconds)
    )


async def read_body(
    request: web.Request,
    limit_bytes: int = BODY_BYTES,
    *,
    within_seconds: float = BODY_SECONDS,
) -> bytes:
    """Read at most `limit_bytes` of body, as they came over the wire.

    The limits are this function's and not the application's `client_max_size`, which
    belongs to the host. A body that a host's middleware has read is taken from there.

    Raises:
        Problem: 413, without reading on; 408 after `within_seconds`; 415 for a
            content coding, since the size of what it unpacks to is unknown.
        ConnectionError: the client left.
    """
    _check_framing(request)
    _check_coding(request)
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(within_seconds):
            return await _read(request, limit_bytes)
    except TimeoutError:
        detail = "The body came too slowly."
        raise Problem("request_timeout", detail, closes=True) from None


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    content = request.content
    if content.at_eof():
        return await request.read()
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(body)


def _check_framing(request: web.Request) -> None:
    # RFC 9112 § 6.1: chunks in HTTP/1.0 are faulty framing. The parser skips them.
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        raise Problem("bad_request", "HTTP/1.0 has no chunks.", closes=True)


def _check_type(request: web.Request) -> None:
    # aiohttp's `content_type` takes the first of two headers and invents one for none.
    declared = request.headers.getall("Content-Type", [])
    if len(declared) != 1 or request.content_type != "application/json":
        raise _unsupported("Content-Type must be application/json.", "Content-Type")
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise _unsupported("The only charset is utf-8.", "Content-Type")


def _check_coding(request: web.Request) -> None:
    codings = request.headers.getall("Content-Encoding", [])
    if any(coding.strip().lower() != "identity" for coding in codings):
        raise _unsupported("A body must not be compressed.", "Content-Encoding")


def _unsupported(detail: str, header: str) -> Problem:
    errors = [(f"/headers/{header}", detail)]
    return Problem("unsupported_media_type", detail, errors=errors, closes=True)


def _too_large(limit_bytes: int) -> Problem:
    detail = f"The body has more than {limit_bytes} bytes."
    return Problem("too_large", detail, closes=True)


def bound_buffers(transport: asyncio.BaseTransport) -> None:
    """Keep what a slow client can hold small, and notice one that has vanished.

    The kernel takes about 4 MB for a client that does not read, and waits over 40 s for
    one whose network is gone, unless it is told otherwise.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with contextlib.suppress(OSError):  # the client may be gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS
            )
