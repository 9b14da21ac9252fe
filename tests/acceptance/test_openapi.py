"""What a running server answers is what its OpenAPI document says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

from aiohttp import web

from tests.chat_host import (
    PATIENCE_SECONDS,
    Host,
    chat_host,
    serving,
    settings,
    token,
)
from tests.dictation import Dictation, saying
from tests.openapi import PREFIX, Document, Seen, complaints
from tests.postgres import PostgresServer
from viva_server import create_app
from viva_server.api.openapi import WEBHOOK, WHATSAPP_MESSAGE
from viva_server.commands.serve import standalone_app
from viva_server.errors import ResponderError
from viva_server.responders import Conversation

UNKNOWN = "0199c3a0-0000-7000-8000-000000000000"


class Prober:
    """Sends requests and holds the answers against the served document."""

    def __init__(self, host: Host, document: Document) -> None:
        self._host = host
        self._document = document
        self.seen: set[tuple[str, str, int]] = set()

    async def __call__(
        self,
        method: str,
        path: str,
        status: int,
        *,
        user: str | None = "ana",
        **kwargs: Any,
    ) -> Any:
        url = kwargs.pop("at", path)
        headers = kwargs.pop("headers", {})
        if user is not None:
            headers = {"Authorization": f"Bearer {token(user)}", **headers}
        async with self._host.session.request(
            method, self._host.origin + PREFIX + url, headers=headers, **kwargs
        ) as response:
            body = await response.read()
        seen = Seen(method, path, response.status, response.headers, body)
        assert not complaints(self._document, seen), (method, path)
        assert response.status == status, body
        self.seen.add((method, path, status))
        return json.loads(body) if body.startswith(b"{") else body


async def served(host: Host, path: str = f"{PREFIX}/openapi.json") -> Document:
    async with host.session.get(host.origin + path) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return Document(await response.json())


async def moody(conversation: Conversation) -> AsyncIterator[str]:
    """Answer, or fail as the message says."""
    # Questions without a reply stand in one message with the next one.
    asked = conversation.messages[-1].content
    if asked.endswith("cai"):
        raise ResponderError("upstream_timeout")
    if asked.endswith("outro"):
        raise ResponderError("a_word_of_the_host", retryable=False)
    yield "Olá, "
    yield "Ana 😀"


async def test_every_good_answer_is_as_the_document_says(database_url: str) -> None:
    config = settings(database_url)
    async with serving(create_app(config, respond=moody)) as host:
        probe = Prober(host, await served(host))
        answer = await probe("post", "/viva/chat", 200, json={"mensagem": "oi"})
        await probe("post", "/viva/chat/stream", 200, json={"mensagem": "e agora?"})
        message_id, session_id = answer["message_id"], answer["session_id"]
        resume = "/viva/chat/stream/{message_id}"
        here = f"/viva/chat/stream/{message_id}"
        await probe("get", resume, 200, at=here)
        await probe("get", resume, 200, at=f"{here}?after={message_id}:5")
        await probe("get", resume, 204, at=f"{here}?after={message_id}:end")
        await probe("post", f"{resume}/stop", 200, at=f"{here}/stop")
        here = f"/viva/chat/stream/{(await newest(host))['id']}"
        await probe("post", f"{resume}/again", 200, at=f"{here}/again")
        for method in ("get", "head"):
            await probe(method, "/viva/chat/snapshot", 200)
            await probe(method, "/viva/chat/sessions", 200)
        await probe("get", "/viva/chat/snapshot", 200, user="bia")
        await probe("post", "/viva/chat/session/new", 200)
        await probe("post", "/viva/chat/session/new", 200, json={"modo": "curto"})
        delete = "/viva/chat/sessions/{session_id}"
        await probe("delete", delete, 204, at=f"/viva/chat/sessions/{session_id}")
        for path in ("/webhook/evolution", "/webhook/evolution/{event}"):
            at = path.format(event="messages-upsert")
            await probe("post", path, 200, at=at, json={"data": {"key": "dummy"}})
            await probe("get", path, 200, at=at)
            await probe("head", path, 200, at=at)
        for path in ("/health", "/ready", "/openapi.json"):
            await probe("get", path, 200, user=None)
            await probe("head", path, 200, user=None)
        await probe("get", "/metrics", 200, user=None)
        await probe("post", "/webhook/evolution", 200, json=WEBHOOK)
        await _operate(probe)

    good = {
        (method, path, int(status))
        for path, method, operation in Document().operations()
        for status in operation["responses"]
        if int(status) < 300
    }
    assert probe.seen == good


async def newest(host: Host) -> Any:
    return (await host.ana.snapshot())["messages"][-1]


async def _operate(probe: Prober) -> None:
    """Ask what only operators may ask."""
    admin: dict[str, Any] = {
        "user": None,
        "headers": {"Authorization": f"Bearer {token('ops', scope='admin')}"},
    }
    here = f"/whatsapp/trace/{WHATSAPP_MESSAGE}"
    traced = await probe("get", "/whatsapp/trace/{key_id}", 200, at=here, **admin)
    assert len(traced["deliveries"]) == 1
    for method in ("get", "head"):
        await probe(method, "/viva/operator/overview", 200, **admin)
        await probe(method, "/viva/operator/dead", 200, **admin)
    replay, search = "/viva/operator/dead/replay", "/viva/operator/messages/search"
    await probe("post", replay, 200, json={"ids": [UNKNOWN]}, **admin)
    await probe("post", search, 200, json={"phone": "11999998888"}, **admin)


async def test_every_error_is_as_the_document_says(database_url: str) -> None:
    config = settings(database_url, webhook_secret=("segredo-do-webhook",))
    async with serving(create_app(config, respond=moody)) as host:
        probe = Prober(host, await served(host))
        for path in ("/viva/chat", "/viva/chat/stream"):
            await probe("post", path, 415, data=b"{}", headers={"Content-Type": "a/b"})
            await probe("post", path, 413, data=BytesIO(bytes(2**20 + 1)), **AS_JSON)
            await probe("post", path, 400, data=b"{", **AS_JSON)
            await probe("post", path, 422, json={"modo": 1, "contexto": 2})
            await probe("post", path, 401, user=None, json={"mensagem": "oi"})
            unknown = {"mensagem": "oi", "session_id": UNKNOWN}
            await probe("post", path, 404, json=unknown)
            refused = {"Expect": "a miracle"}
            await probe("post", path, 417, headers=refused, json={"mensagem": "oi"})
            await _reuse_a_key(probe, path)
        await probe("post", "/viva/chat", 502, json={"mensagem": "cai"})
        failed = await probe("post", "/viva/chat", 502, json={"mensagem": "outro"})
        await probe("post", "/viva/chat/stream", 200, json={"mensagem": "cai"})
        resume = "/viva/chat/stream/{message_id}"
        here = f"/viva/chat/stream/{UNKNOWN}"
        await probe("get", resume, 404, at=here)
        await probe("get", resume, 401, at=here, user=None)
        await probe("post", f"{resume}/stop", 404, at=f"{here}/stop")
        await probe("post", f"{resume}/again", 404, at=f"{here}/again")
        await probe("get", "/viva/chat/snapshot", 400, at="/viva/chat/snapshot?limit=x")
        await probe("get", "/viva/chat/sessions", 400, at="/viva/chat/sessions?page=x")
        await probe("post", "/viva/chat/session/new", 422, json={"modo": [1]})
        delete = "/viva/chat/sessions/{session_id}"
        await probe("delete", delete, 404, at=f"/viva/chat/sessions/{UNKNOWN}")
        hook = "/webhook/evolution"
        await probe("post", hook, 401, json={})
        await probe("post", hook, 400, at=f"{hook}?token=segredo-do-webhook", data=b"{")
        forwarded = {"X-Forwarded-For": "203.0.113.7"}
        await probe("get", "/metrics", 403, headers=forwarded)
        await probe("get", "/metrics", 401, user=None, headers=forwarded)

    assert failed["code"] == "a_word_of_the_host"


AS_JSON: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}


async def _reuse_a_key(probe: Prober, path: str) -> None:
    key = {"Idempotency-Key": f"key of {path}"}
    await probe("post", path, 200, headers=key, json={"mensagem": "uma"})
    await probe("post", path, 422, headers=key, json={"mensagem": "outra"})
    bad = {"Idempotency-Key": ""}
    await probe("post", path, 400, headers=bad, json={"mensagem": "oi"})


async def test_what_a_busy_server_refuses_is_as_the_document_says(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation, live_replies_per_user=1) as host:
        probe = Prober(host, await served(host))
        async with host.ana.stream("oi") as stream:
            await stream.event()
            refused = await probe("post", "/viva/chat", 409, json={"mensagem": "e?"})
            await host.ana.post("/viva/chat/session/new", {})
            await probe("post", "/viva/chat", 429, json={"mensagem": "outra"})
            (await dictation.begun()).end()
            await stream.rest()

    assert refused["resume_url"].endswith(refused["message_id"])


async def test_without_a_database_the_refusals_are_as_the_document_says(
    own_postgres: PostgresServer,
) -> None:
    with own_postgres.database() as url:
        async with chat_host(url, saying("oi")) as host:
            probe = Prober(host, await served(host))
            await probe("get", "/ready", 200)
            await own_postgres.stop()
            ready = f"{host.origin}{PREFIX}/ready"
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await host.session.get(ready)).status == 200:
                    await asyncio.sleep(0.05)
            await probe("get", "/ready", 503)
            await probe("head", "/ready", 503)
            await probe("post", "/viva/chat", 503, json={"mensagem": "oi"})
            await probe("get", "/viva/chat/sessions", 503)
            await probe("post", "/webhook/evolution", 503, json={"data": {}})
            await own_postgres.start()


async def test_the_document_names_the_prefix_wherever_it_is_mounted(
    database_url: str,
) -> None:
    app = web.Application()
    config = settings(database_url, auto_migrate=False)
    app.add_subapp("/assistant", create_app(config, prefix="/v9"))
    async with serving(app) as host:
        mounted = await served(host, "/assistant/v9/openapi.json")
    async with serving(standalone_app(config)) as host:
        alone = [await served(host, f"{at}/openapi.json") for at in ("", PREFIX)]

    assert mounted.members["servers"] == [{"url": "/assistant/v9"}]
    assert [one.members["servers"] for one in alone] == [[{"url": PREFIX}]] * 2
    assert alone[0].members == alone[1].members == Document().members
