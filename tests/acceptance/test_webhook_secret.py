"""Who may deliver webhooks, and that no secret is kept."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from tests.acceptance.webhook_server import (
    WebhookClient,
    received,
    rows,
    webhook_server,
)
from tests.postgres import run_sql
from viva_server.config import Config
from viva_server.store.driver.database import Database

SECRET = "canary-secret-1f3a"
LOCKED = Config(webhook_secret=("another-secret", SECRET), evolution_api_key="unused")


@pytest.fixture
async def locked(database: Database) -> AsyncIterator[WebhookClient]:
    """A server with a secret."""
    async with webhook_server(database, LOCKED) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(password: str) -> dict[str, str]:
    pair = base64.b64encode(f"evolution:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def minted(age: int) -> str:
    """Evolution's token, whose retries come up to 34 minutes later."""
    at = int(time.time()) - age
    claims = {"iat": at, "exp": at + 600, "app": "evolution", "action": "webhook"}
    return jwt.encode(claims, SECRET.ljust(32, "\0"), algorithm="HS256")


WAYS: dict[str, tuple[str, dict[str, str] | int, dict[str, Any]]] = {
    "bearer": ("/call", bearer(SECRET), {}),
    "basic": ("/call", basic(SECRET), {}),
    "apikey": ("/call", {"apikey": SECRET}, {}),
    "query": (f"/call?token={SECRET}", {}, {}),
    "query and tail": (f"?token={SECRET}/call", {}, {}),
    "body": ("/call", {}, {"apikey": SECRET}),
    # The age of the token that comes with it, in seconds.
    "token": ("/call", 0, {}),
    "token of a retry": ("/call", 34 * 60, {}),
    "the other secret": ("/call", {"apikey": "another-secret"}, {}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_secret_opens_in_each_way_and_is_never_stored(
    locked: WebhookClient,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    caplog.set_level(logging.DEBUG, "viva_server")
    tail, given, body = WAYS[way]
    headers = bearer(minted(given)) if isinstance(given, int) else given
    data = {"text": f"my secret is {SECRET}", "instanceToken": "canary-token"}
    full = {**body, "data": data, "destination": f"https://u:canary-pass@h?t={SECRET}"}
    status, answer, _ = await locked.post(tail, full, headers=headers)
    assert (status, answer) == (200, received("call"))
    assert rows(database_url, "trusted") == [(True,)]
    stored = str(run_sql(database_url, "SELECT CAST(i AS text) FROM viva.inbox i"))
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("viva_server")]
    for text in (stored, str(ours), str(answer)):
        assert "canary" not in text
        assert headers.get("Authorization", "canary") not in text


@pytest.mark.parametrize(
    ("tail", "headers", "body"),
    [
        ("/call", {}, {}),
        ("/call", {}, {"apikey": "wrong"}),
        ("/call", {}, {"apikey": None}),
        ("/call", {}, {"data": {"apikey": SECRET}}),
        ("/call", bearer("wrong"), {"apikey": SECRET}),
        ("/call", bearer(minted(41 * 60)), {}),
        ("/call", basic("wrong"), {}),
        ("/call", {"apikey": "wrong"}, {}),
        ("/call?token=wrong", {}, {"apikey": SECRET}),
        ("?token=wrong/call", {}, {}),
        (f"/{SECRET}", {}, {}),
    ],
)
async def test_without_the_secret_it_is_401_and_nothing_is_stored(
    locked: WebhookClient,
    database_url: str,
    tail: str,
    headers: dict[str, str],
    body: dict[str, Any],
) -> None:
    status, answer, answered = await locked.post(tail, body, headers=headers)
    assert (status, answer["code"]) == (401, "wrong_secret")
    assert answered["WWW-Authenticate"] == "Bearer"
    assert rows(database_url) == []


async def test_without_the_secret_what_is_no_json_is_401(locked: WebhookClient) -> None:
    assert (await locked.post("", data=b"{"))[0] == 401
    assert (await locked.post("", data=b"{", headers={"apikey": SECRET}))[0] == 400


async def test_a_wrong_secret_is_answered_before_the_body(
    locked: WebhookClient,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with asyncio.timeout(15):
        status, _, _ = await locked.post("", data=never(), headers=bearer("wrong"))
    assert status == 401


@pytest.mark.parametrize("is_open", [False, True])
async def test_without_a_secret_events_are_stored_but_trusted_only_when_open(
    database: Database, database_url: str, is_open: bool
) -> None:
    async with webhook_server(database, Config(webhook_open=is_open)) as server:
        status, _, _ = await server.post("/call", {}, headers=bearer("whatever"))
    assert status == 200
    assert rows(database_url, "trusted") == [(is_open,)]
