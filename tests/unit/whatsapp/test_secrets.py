"""The secret opens the door in six ways, and nothing else does."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
from multidict import CIMultiDict

from viva_server.whatsapp.ingress.secrets import (
    LEEWAY_SECONDS,
    Verdict,
    judge_body,
    judge_request,
)

SECRET = "s3cr/t+ç % ü:with everything"
SECRETS = ("first-secret", SECRET)


def judge(headers: dict[str, str] | None = None, query: str = "") -> Verdict:
    return judge_request(SECRETS, CIMultiDict(headers or {}), query)


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token(key: str = "first-secret", age: float = 0, **changes: Any) -> str:
    minted = int(time.time() - age)
    claims = {
        "iat": minted,
        "exp": minted + 600,
        "app": "evolution",
        "action": "webhook",
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key.encode().ljust(32, b"\0"), algorithm="HS256")


def test_without_a_secret_the_door_is_open() -> None:
    verdict = judge_request((), CIMultiDict(bearer("x")), "token=y")
    assert verdict is Verdict.OPEN


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_a_bearer_header_opens(secret: str, scheme: str) -> None:
    assert judge({"Authorization": f"{scheme} {secret}"}) is Verdict.RIGHT


@pytest.mark.parametrize(
    "pair",
    [
        f"evolution:{SECRET}",
        f":{SECRET}",
        "user:first-secret",
        "user:first%2Dsecret",
        "u:s3cr%2Ft%2B%C3%A7%20%25%20%C3%BC%3Awith%20everything",
    ],
)
def test_a_basic_password_opens_raw_and_percent_encoded(pair: str) -> None:
    assert judge(basic(pair)) is Verdict.RIGHT


@pytest.mark.parametrize("secret", SECRETS)
def test_an_apikey_header_opens(secret: str) -> None:
    assert judge({"ApiKey": secret}) is Verdict.RIGHT


@pytest.mark.parametrize(
    "query",
    [
        "token=first-secret",
        "token=first-secret/messages-upsert",
        "token=first-secret//messages-upsert",
        "token=first-secret/",
        "a=b&token=first-secret/call",
        "token=first%2Dsecret/call",
        "token=s3cr/t+%C3%A7%20%25%20%C3%BC:with%20everything/messages-upsert",
        "token=s3cr%2Ft%2B%C3%A7+%25+%C3%BC%3Awith+everything",
    ],
)
def test_a_token_in_the_query_opens_with_evolutions_tail_appended(query: str) -> None:
    assert judge(query=query) is Verdict.RIGHT


def test_the_bodys_apikey_opens() -> None:
    assert judge_body(SECRETS, {"apikey": SECRET})
    for wrong in ("x", "", None, 5, [SECRET], {"apikey": SECRET}):
        assert not judge_body(SECRETS, {"apikey": wrong})
    assert not judge_body(SECRETS, {})


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("age", [0, 599, 11 * 60, 34 * 60])
def test_evolutions_token_opens_for_all_its_retries(key: str, age: int) -> None:
    assert judge(bearer(token(key, age))) is Verdict.RIGHT


def test_evolutions_token_ends_after_the_leeway() -> None:
    assert judge(bearer(token(age=600 + LEEWAY_SECONDS + 5))) is Verdict.WRONG


@pytest.mark.parametrize(
    "claims",
    [
        {"app": "other"},
        {"app": None},
        {"action": "login"},
        {"action": ["webhook"]},
        {"exp": None},
        {"iat": None},
        {"exp": "soon"},
        {"exp": 1e400},
        {"iat": time.time() + 7200},
        {"nbf": time.time() + 7200},
    ],
)
def test_a_token_with_other_claims_is_wrong(claims: dict[str, Any]) -> None:
    assert judge(bearer(token(**claims))) is Verdict.WRONG


def test_a_token_of_another_algorithm_is_wrong() -> None:
    claims = jwt.decode(token(), options={"verify_signature": False})
    none = jwt.encode(claims, None, algorithm="none")
    longer = jwt.encode(claims, "first-secret".ljust(64, "\0"), algorithm="HS512")
    for other in (none, longer, token("another-secret"), token()[:-2] + "xx"):
        assert judge(bearer(other)) is Verdict.WRONG


@pytest.mark.parametrize(
    "headers",
    [
        bearer("wrong"),
        bearer("first-secret2"),
        bearer("a.b.c"),
        bearer("\udcff\udcfe.\udcff.x"),
        basic("first-secret:wrong"),
        basic("first-secret"),
        {"Authorization": "Basic é"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Digest first-secret"},
        {"Authorization": "first-secret"},
        {"apikey": "wrong"},
        {"apikey": "\udcff"},
    ],
)
def test_another_credential_is_wrong_without_the_body(headers: dict[str, str]) -> None:
    assert judge(headers) is Verdict.WRONG


def test_another_token_in_the_query_is_wrong() -> None:
    assert judge(query="token=wrong/call") is Verdict.WRONG
    assert judge(query="token=first-secretx") is Verdict.WRONG


@pytest.mark.parametrize("query", ["", "token=", "secret=first-secret"])
def test_without_a_credential_the_body_decides(query: str) -> None:
    assert judge({"apikey": ""}, query) is Verdict.NONE


def test_one_right_credential_among_others_opens() -> None:
    headers = CIMultiDict([("apikey", "wrong"), ("apikey", "first-secret")])
    assert judge_request(SECRETS, headers, "token=wrong") is Verdict.RIGHT
