"""A token is accepted only if every rule of RFC 8725 holds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.auth import Identity, JwtAuth, ScopeError, require_scope
from viva_server.errors import AuthError

NOW = 1_800_000_000.0
SECRET = "a-secret-of-32-bytes-or-a-few-more"
OTHER = "another-secret-of-32-bytes-or-more"
GOOD: dict[str, Any] = {"sub": "ana", "iat": NOW - 10, "exp": NOW + 900}
HS256 = {"typ": "JWT", "alg": "HS256"}

auth = JwtAuth([SECRET])


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(
    claims: object,
    header: object = HS256,
    secret: str = SECRET,
    digest: str = "sha256",
) -> str:
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.digest(secret.encode(), signed.encode(), digest)
    return f"{signed}.{part(signature)}"


def verify(token: str) -> Identity:
    return auth.verify([f"Bearer {token}"], now=NOW)


def test_a_token_that_was_issued_is_accepted_until_it_expires() -> None:
    value = f"Bearer {auth.issue('ana', 900, now=NOW)}"

    assert auth.verify([value], now=NOW + 899) == Identity("ana")
    with pytest.raises(AuthError, match="expired"):
        auth.verify([value], now=NOW + 900)


def test_scopes_are_separated_by_spaces() -> None:
    token = auth.issue("ana", scope="admin trace", now=NOW)

    assert verify(token).scopes == {"admin", "trace"}


def test_a_missing_scope_is_named() -> None:
    require_scope(Identity("ana", frozenset({"admin"})), "admin")
    with pytest.raises(ScopeError) as caught:
        require_scope(Identity("ana"), "admin")
    assert caught.value.scope == "admin"


def test_the_first_secret_signs_and_all_verify() -> None:
    old, new = JwtAuth([OTHER]), JwtAuth([SECRET, OTHER])
    token = old.issue("ana", now=NOW)

    assert new.verify([f"Bearer {token}"], now=NOW).user_id == "ana"
    with pytest.raises(AuthError):
        old.verify([f"Bearer {new.issue('ana', now=NOW)}"], now=NOW)


def test_an_auth_without_a_usable_secret_cannot_be_made() -> None:
    for secrets in ([], [""], [SECRET, ""]):
        with pytest.raises(ValueError, match="secret"):
            JwtAuth(secrets)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR "])
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    assert auth.verify([f"{scheme} {sign(GOOD)}"], now=NOW).user_id == "ana"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer {sign(GOOD)} "],
        [f"Bearer {sign(GOOD)} x"],
        [f"Bearer\t{sign(GOOD)}"],
        [sign(GOOD)],
        [f"Basic {sign(GOOD)}"],
        ["Basic YW5hOng="],
        [f"Bearer {sign(GOOD)}", f"Bearer {sign(GOOD)}"],
        [f"Bearer {sign(GOOD)}é"],
        ["Bearer \udce9.\udce9.\udce9"],
        ["Bearer a.b"],
        ["Bearer a.b.c"],
        ["Bearer a.b.c.d"],
        [f"Bearer {sign(GOOD)}="],
        [f"Bearer {'a' * 100_000}.b.c"],
        [f"Bearer {sign({**GOOD, 'x': 'y' * 3_000_000})}"],
    ],
    ids=lambda values: f"{len(values)} {str(values)[:24]}",
)
def test_a_bad_authorization_header_is_refused(values: list[str]) -> None:
    with pytest.raises(AuthError):
        auth.verify(values, now=NOW)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT", "alg": "none"},
        {"typ": "JWT", "alg": "None"},
        {"typ": "JWT", "alg": ""},
        {"typ": "JWT", "alg": None},
        {"typ": "JWT", "alg": ["HS256"]},
        {"typ": "JWT", "alg": "hs256"},
        {"typ": "JWT", "alg": "RS256"},
        {"typ": "JWT", "alg": "ES256"},
        {"typ": "JWT"},
        {**HS256, "crit": ["exp"], "exp": NOW},
        {**HS256, "crit": ["b64"], "b64": True},
        {**HS256, "crit": []},
        {**HS256, "b64": False},
        {**HS256, "kid": 7},
        {**HS256, "jku": "http://127.0.0.1/keys"},
        {**HS256, "x5u": "http://127.0.0.1/keys"},
        {**HS256, "jwk": {"kty": "oct", "k": "AAAA"}},
        {**HS256, "x5c": ["AAAA"]},
        {**HS256, "zip": "DEF"},
        {**HS256, "typ": "secevent+jwt"},
        {**HS256, "typ": 1},
        [],
        "x",
        None,
        b"{",
        b"\xff",
        b"[" * 5000,
    ],
    ids=str,
)
def test_a_bad_header_is_refused_even_when_the_signature_fits(header: object) -> None:
    with pytest.raises(AuthError):
        verify(sign(GOOD, header))


@pytest.mark.parametrize(
    ("alg", "digest"), [("HS384", "sha384"), ("HS512", "sha512"), ("HS256", "sha512")]
)
def test_only_hs256_counts(alg: str, digest: str) -> None:
    with pytest.raises(AuthError):
        verify(sign(GOOD, {"typ": "JWT", "alg": alg}, digest=digest))


def test_an_unsigned_token_is_refused() -> None:
    signed = sign(GOOD, {"typ": "JWT", "alg": "none"}).rpartition(".")[0]

    for value in (f"Bearer {signed}.", f"Bearer {signed}"):
        with pytest.raises(AuthError):
            auth.verify([value], now=NOW)


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "x' UNION SELECT 'key", "/dev/null\0"]
)
def test_a_kid_never_chooses_the_key(kid: str) -> None:
    for secret in ("", "key", "\0"):
        with pytest.raises(AuthError):
            verify(sign(GOOD, {**HS256, "kid": kid}, secret))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "ana"},
        {**GOOD, "exp": None},
        {**GOOD, "exp": NOW},
        {**GOOD, "exp": NOW - 1},
        {**GOOD, "exp": str(NOW + 900)},
        {**GOOD, "exp": True},
        {**GOOD, "exp": [NOW + 900]},
        {**GOOD, "exp": 10**400},
        {**GOOD, "nbf": NOW + 61},
        {**GOOD, "nbf": "1"},
        {**GOOD, "nbf": None},
        {**GOOD, "iat": NOW + 61},
        {**GOOD, "iat": "now"},
        {**GOOD, "aud": "another"},
        {**GOOD, "aud": []},
        {"exp": NOW + 900},
        {**GOOD, "sub": ""},
        {**GOOD, "sub": None},
        {**GOOD, "sub": 7},
        {**GOOD, "sub": ["ana"]},
        {**GOOD, "sub": "a" * 256},
        {**GOOD, "sub": "ana\0"},
        {**GOOD, "sub": "ana\n"},
        {**GOOD, "sub": "\x7f"},
        {**GOOD, "sub": "ana\ud800"},
        {**GOOD, "scope": ["admin"]},
        {**GOOD, "scope": None},
        [],
        "ana",
        None,
        b"",
        b'{"sub":"ana","exp":1e400}',
        b'{"sub":"ana","exp":NaN}',
        b'{"sub":"ana","exp":Infinity}',
        b'{"sub":"ana","exp":' + b"9" * 5000 + b"}",
        b'{"sub":"eve","exp":1800000900,"sub":"ana"}',
        b'{"sub":"ana","exp":1,"exp":1800000900}',
        b'{"sub":"an\xe9","exp":1800000900}',
        b'\xef\xbb\xbf{"sub":"ana","exp":1800000900}',
        b'{"sub":"ana","exp":1800000900}x',
        b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=lambda claims: str(claims)[:50],
)
def test_bad_claims_are_refused_even_when_the_signature_fits(claims: object) -> None:
    with pytest.raises(AuthError):
        verify(sign(claims))


@pytest.mark.parametrize("early", [0, 60])
def test_another_clock_may_run_ahead_by_a_minute(early: int) -> None:
    assert (
        verify(sign({**GOOD, "iat": NOW + early, "nbf": NOW + early})).user_id == "ana"
    )


@pytest.mark.parametrize("sub", ["a", "a" * 255, "joão da silva", "a+b@c.example"])
def test_any_text_that_can_be_stored_is_a_user(sub: str) -> None:
    assert verify(sign({**GOOD, "sub": sub})).user_id == sub


def test_a_token_whose_bytes_were_changed_is_refused() -> None:
    token = sign(GOOD)
    for place in range(len(token)):
        changed = "A" if token[place] != "A" else "B"
        with pytest.raises(AuthError):
            verify(token[:place] + changed + token[place + 1 :])


def test_a_token_of_another_secret_is_refused() -> None:
    with pytest.raises(AuthError, match="signature"):
        verify(sign(GOOD, secret=OTHER))
    with pytest.raises(AuthError, match="signature"):
        verify(sign(GOOD, secret=hashlib.sha256(SECRET.encode()).hexdigest()))


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_raises_anything_but_auth_error(values: list[str]) -> None:
    with pytest.raises(AuthError):
        auth.verify([*values, *(f"Bearer {value}" for value in values)], now=NOW)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_signed_token_raises_anything_but_auth_error(
    header: bytes, claims: bytes
) -> None:
    with pytest.raises(AuthError):
        verify(sign(claims, header))


def test_a_user_that_verify_would_refuse_gets_no_token() -> None:
    with pytest.raises(AuthError):
        auth.issue("ana\0")
