"""Who may deliver: the six ways in which a webhook's secret can come.

Evolution signs nothing in any version, so the secret itself, or a token made with it,
travels along.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Protocol
from urllib.parse import unquote, unquote_plus

import jwt

from viva_server.whatsapp.events.json_values import Object

# Evolution mints its token once and sends it with every retry; the last one starts
# up to 23 minutes after its end, and a 401 makes it drop the message for good.
LEEWAY_SECONDS = 1800

_MIN_HS256_BYTES = 32
_CLAIMS = {"app": "evolution", "action": "webhook"}


class Headers(Protocol):
    """Request headers, of which one name may stand several times."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]: ...


class Verdict(Enum):
    """What the credentials before the body say."""

    OPEN = "no secret is configured"
    RIGHT = "the secret was given"
    WRONG = "another secret was given"
    NONE = "none was given; the body's apikey decides"


def judge_request(secrets: Sequence[str], headers: Headers, query: str) -> Verdict:
    """Judge the credentials in headers and query, without the body.

    Args:
        secrets: any of them is right; all are compared, in constant time.
        headers: of the request.
        query: undecoded; Evolution appends its tail to the value of `token`.
    """
    if not secrets:
        return Verdict.OPEN
    authorizations = headers.getall("Authorization", ())
    given = [*_given_in_headers(headers), *_given_in_query(query)]
    given = [value for value in given if value]
    if _any_matches(secrets, given) or _any_verifies(secrets, authorizations):
        return Verdict.RIGHT
    return Verdict.WRONG if given or authorizations else Verdict.NONE


def judge_body(secrets: Sequence[str], body: Object) -> bool:
    """Return whether the body's `apikey` is one of the secrets.

    The global webhook has no headers, so this is its only way.
    """
    given = body.get("apikey")
    return isinstance(given, str) and _any_matches(secrets, [given])


def _any_matches(secrets: Iterable[str], given: Iterable[str]) -> bool:
    candidates = [value.encode("utf-8", "surrogateescape") for value in given]
    # A list, not a generator: the time must not tell which one matched.
    matches = [
        hmac.compare_digest(secret.encode(), candidate)
        for secret in secrets
        for candidate in candidates
    ]
    return any(matches)


def _given_in_headers(headers: Headers) -> Iterator[str]:
    yield from headers.getall("apikey", ())
    for value in headers.getall("Authorization", ()):
        if (bearer := _bearer(value)) is not None:
            yield bearer
        elif (password := _basic_password(value)) is not None:
            # axios 1.7.9 sends the password of a URL as it stands there.
            yield from {password, unquote(password)}


def _given_in_query(query: str) -> Iterator[str]:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if name != "token":
            continue
        for token in {unquote(value), unquote_plus(value)}:
            yield from {token, token.rstrip("/"), token.rpartition("/")[0].rstrip("/")}


def _bearer(value: str) -> str | None:
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def _basic_password(value: str) -> str | None:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(rest.strip().encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return pair.partition(b":")[2].decode("utf-8", "surrogateescape")


def _any_verifies(secrets: Iterable[str], authorizations: Iterable[str]) -> bool:
    tokens = [token for value in authorizations if (token := _bearer(value))]
    verified = [_verifies(secret, token) for secret in secrets for token in tokens]
    return any(verified)


def _verifies(secret: str, token: str) -> bool:
    if token.count(".") != 2:
        return False
    # HMAC pads a short key with zeros itself; done here, PyJWT warns of none.
    key = secret.encode().ljust(_MIN_HS256_BYTES, b"\0")
    try:
        claims = jwt.decode(
            token.encode("utf-8", "replace"),
            key,
            algorithms=["HS256"],
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat"], "verify_aud": False},
        )
    except (jwt.InvalidTokenError, ValueError, ArithmeticError, RecursionError):
        return False
    return all(claims.get(name) == value for name, value in _CLAIMS.items())
