"""Bearer tokens: who a request comes from, by RFC 8725's rules; no I/O."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt

from viva_server.errors import AuthError

MAX_TOKEN_CHARS = 8192
LEEWAY_SECONDS = 60.0
"""How far another machine's clock may run ahead in `iat` and `nbf`; `exp` has none."""

_MAX_USER_CHARS = 255
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
_NOT_IN_A_USER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# RFC 8725 §§ 3.1, 3.10: a token never chooses its own key. RFC 7515 § 4.1.11: an
# extension that is not understood refuses the token, and none is understood here.
_REFUSED_HEADERS = frozenset({"b64", "crit", "jku", "jwk", "x5c", "x5u", "zip"})


class ScopeError(AuthError):
    """The token is good but does not carry the scope that the route asks for."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"scope {scope} is missing")
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from and what it may do."""

    user_id: str
    scopes: frozenset[str] = frozenset()


def require_scope(identity: Identity, scope: str) -> None:
    """Raise ScopeError unless `identity` has `scope`."""
    if scope not in identity.scopes:
        raise ScopeError(scope)


def checked_user(value: object) -> str:
    """Return a user's id; raise AuthError if it cannot be one."""
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_USER_CHARS:
        problem = f"the user is not a text of 1 to {_MAX_USER_CHARS} characters"
        raise AuthError(problem)
    if _NOT_IN_A_USER.search(value):
        raise AuthError("the user has a character that cannot be stored")
    return value


class JwtAuth:
    """Issues and checks HS256 tokens: the first secret signs, every secret verifies.

    The signature is PyJWT's work. The claims are checked here, because PyJWT takes
    a string for `exp`, the last of two equal claims, and its own clock.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("at least one secret is needed, and none may be empty")
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._jws = jwt.PyJWS(algorithms=["HS256"])

    def issue(
        self,
        user_id: str,
        ttl_seconds: float = 900.0,
        *,
        scope: str | None = None,
        now: float | None = None,
    ) -> str:
        """Return a token for `user_id`; `now` is in seconds since 1970.

        Raises:
            AuthError: `user_id` is one that `verify` would refuse.
        """
        issued = int(time.time() if now is None else now)
        claims: dict[str, Any] = {
            "sub": checked_user(user_id),
            "iat": issued,
            "exp": issued + math.ceil(ttl_seconds),
        }
        if scope:
            claims["scope"] = scope
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, self._secrets[0], algorithm="HS256")

    def verify(
        self, authorization: Sequence[str], *, now: float | None = None
    ) -> Identity:
        """Return who sent these values of the header Authorization (all of them).

        Raises:
            AuthError: anything is wrong; its message is for a log, never for a client.
        """
        claims = _json_object(self._payload(_bearer_token(authorization)))
        _check_times(claims, time.time() if now is None else now)
        if "aud" in claims:
            # RFC 7519 § 4.1.3: who is not named in `aud` must refuse the token.
            raise AuthError("the token is for another audience")
        return Identity(
            checked_user(claims.get("sub")), _scopes(claims.get("scope", ""))
        )

    def _payload(self, token: str) -> bytes:
        for secret in self._secrets:
            try:
                parts = self._jws.decode_complete(token, secret, algorithms=["HS256"])
            except jwt.InvalidSignatureError:
                continue
            # PyJWT 2.12 lets a header that is nested deep get past it.
            except (jwt.PyJWTError, RecursionError) as error:
                raise AuthError(f"not a token: {type(error).__name__}") from None
            _check_header(parts["header"])
            payload: bytes = parts["payload"]
            return payload
        raise AuthError("no secret verifies the signature")


def _bearer_token(authorization: Sequence[str]) -> str:
    if len(authorization) != 1:
        raise AuthError(f"{len(authorization)} Authorization headers")
    if len(authorization[0]) > MAX_TOKEN_CHARS:
        raise AuthError("the token is too long")
    if (match := _BEARER.fullmatch(authorization[0])) is None:
        raise AuthError("not a Bearer token")
    return match[1]


def _check_header(header: dict[str, Any]) -> None:
    if refused := sorted(_REFUSED_HEADERS & header.keys()):
        raise AuthError(f"the token's header has {', '.join(refused)}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise AuthError("the token is of another type")


def _check_times(claims: dict[str, Any], now: float) -> None:
    if (expires := _date(claims, "exp")) is None:
        raise AuthError("the token has no exp")
    if expires <= now:
        raise AuthError("the token has expired")
    for name in ("nbf", "iat"):
        start = _date(claims, name)
        if start is not None and start > now + LEEWAY_SECONDS:
            raise AuthError(f"the token's {name} is in the future")


def _date(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthError(f"{name} is not a number")
    if not abs(value) < 1e15:  # seconds; also refuses NaN and infinity
        raise AuthError(f"{name} is not a time")
    return value


def _scopes(value: object) -> frozenset[str]:
    if not isinstance(value, str):
        raise AuthError("scope is not a text")
    return frozenset(value.split())


def _json_object(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(
            payload.decode(),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise AuthError("the token's payload is not strict JSON") from None
    if not isinstance(claims, dict):
        raise AuthError("the token's payload is not an object")
    return claims


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a claim stands twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
