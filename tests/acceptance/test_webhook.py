"""What Evolution gets answered, and what is stored of what it sends."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.webhook_server import (
    WebhookClient,
    received,
    rows,
    webhook_server,
)
from tests.unit.whatsapp.samples import SAMPLES, tail_of
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.whatsapp.events.table import EVENTS

DUMMY = {"data": {"key": "dummy"}}


@pytest.fixture
async def server(database: Database) -> AsyncIterator[WebhookClient]:
    """A server without a secret."""
    async with webhook_server(database, Config()) as client:
        yield client


async def test_the_dummy_check_is_answered_as_received(server: WebhookClient) -> None:
    status, answer, _ = await server.post("/messages-upsert", DUMMY)
    assert (status, answer) == (200, received("messages.upsert"))


@pytest.mark.parametrize("tail", ["", "/", "/messages-upsert"])
async def test_a_person_who_opens_the_url_sees_that_it_is_a_webhook(
    server: WebhookClient, tail: str
) -> None:
    expected = {"status": "webhook ativo", "service": "evolution"}
    assert await server.get(tail) == (200, expected)
    assert await server.head(tail) == 200


async def test_every_event_is_taken_at_every_form_of_its_path(
    server: WebhookClient, database_url: str
) -> None:
    """Without `event` in the body, so that only the URL tells it."""
    forms = {
        "plain": "/{path}",
        "slash": "//{path}",
        "end": "/{path}/",
        "query": "?token=abc/{path}",
        "slash_query": "/?token=abc//{path}",
        "upper": "/{upper}",
        "config": "/{config}",
        "dotted": "/{name}",
        "percent": "/{percent}",
    }
    for event in EVENTS:
        words = {
            "path": event.path,
            "upper": event.path.upper(),
            "config": event.config,
            "name": event.name,
            "percent": event.path.replace("-", "%2D").replace("a", "%61"),
        }
        for name, form in forms.items():
            body = {"instance": name, "data": None}
            status, answer, _ = await server.post(form.format(**words), body)
            assert (status, answer) == (200, received(event.name)), (name, event)
    assert len(rows(database_url)) == len(EVENTS) * len(forms)


@pytest.mark.parametrize(
    ("tail", "event"),
    [
        ("/foo-bar", "foo-bar"),
        ("/foo/bar/", "foo/bar"),
        ("//%C3%A9", "é"),
        ("/%00%0A..%2F", "\ufffd\n.."),
        ("/..%2f..%2fetc", "../../etc"),
        ("/" + "x" * 4000, "x" * 255),
        ("", "unknown"),
        ("?token=first/second", "unknown"),
    ],
)
async def test_an_unknown_path_is_stored_as_it_is(
    server: WebhookClient, database_url: str, tail: str, event: str
) -> None:
    status, answer, _ = await server.post(tail, {"data": {}})
    assert (status, answer) == (200, received(event))
    assert rows(database_url, "event, is_known") == [(event, False)]


async def test_every_sample_of_every_version_is_stored_once(
    server: WebhookClient, database_url: str
) -> None:
    for name, sample in SAMPLES.items():
        body = {**sample["body"], "instance": name}
        headers = sample["headers"]
        event = sample["expect"]["event"]
        first = await server.post(tail_of(sample), body, headers=headers)
        assert first[:2] == (200, received(event)), name
        again = await server.post(tail_of(sample), body, headers=headers)
        assert again[:2] == (200, received(event, duplicate=True)), name
    assert rows(database_url, "instance, kind, deliveries") == [
        (name, sample["expect"]["kind"], 2) for name, sample in SAMPLES.items()
    ]


async def test_fifty_deliveries_at_once_are_one_row(
    server: WebhookClient, database_url: str
) -> None:
    body = {"event": "messages.upsert", "instance": "a", "data": {"key": {"id": "X1"}}}
    answers = await asyncio.gather(*(server.post("", body) for _ in range(50)))
    assert [status for status, _, _ in answers] == [200] * 50
    assert sum(not answer["duplicate"] for _, answer, _ in answers) == 1
    assert rows(database_url, "deliveries") == [(50,)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{",
        b"a=1",
        b'{"a":NaN}',
        b"\xff\xfe{",
        b'{"a":' + b"[" * 100_000,
    ],
)
async def test_what_is_no_json_object_is_400(
    server: WebhookClient, database_url: str, data: bytes
) -> None:
    status, answer, headers = await server.post("/call", data=data)
    assert (status, answer["code"]) == (400, "invalid_json")
    assert headers["Content-Type"].startswith("application/problem+json")
    assert rows(database_url) == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain; charset=utf-16", "application/xml", "x", ""],
)
async def test_json_is_known_by_its_content(
    server: WebhookClient, content_type: str
) -> None:
    data = b'{"event":"call","data":"\xc3\xa9"}'
    headers = {"Content-Type": content_type}
    status, answer, _ = await server.post("", data=data, headers=headers)
    assert (status, answer) == (200, received("call"))


async def test_a_compressed_body_is_400(server: WebhookClient) -> None:
    data = gzip.compress(b'{"event":"call"}')
    headers = {"Content-Encoding": "gzip"}
    status, answer, _ = await server.post("", data=data, headers=headers)
    assert (status, answer["code"]) == (400, "content_encoding")


@pytest.mark.parametrize(
    "data",
    [
        b'{"event":"call","a":"\\u0000","\\u0000":"\\ud800"}',
        b'{"event":"call","event":"call"}',
        b'{"event":"call","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"event":"call","a":' + b"[" * 600 + b"]" * 600 + b"}",
        b'{"event":"call","a":' + b"7" * 5000 + b',"b":1e999}',
        b'\xef\xbb\xbf{"event":"call"}',
    ],
    ids=["nul", "twice", "deep", "deeper than jsonb", "numbers", "bom"],
)
async def test_odd_json_is_stored(
    server: WebhookClient, database_url: str, data: bytes
) -> None:
    status, answer, _ = await server.post("", data=data)
    assert (status, answer) == (200, received("call"))
    assert rows(database_url) == [("call",)]
