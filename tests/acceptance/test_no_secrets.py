"""No secret is in the database, the log, an answer or the output of a command."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from tests.acceptance.poisoned import bodies_of, ways_in
from tests.acceptance.test_commands import run
from tests.fakes.evolution import FakeEvolution
from tests.fakes.evolution_faults import Fault
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.fleet import url_of
from tests.faults.heavy import history
from tests.people import dump
from tests.postgres import PostgresServer
from tests.programs import Program, free_port, program
from tests.secrets_search import Canaries, forms_of
from tests.waiting import until
from viva_server.auth import JwtAuth

_HOOK = "/api/v1/webhook/evolution"


class Site:
    """A server with all secrets set, and all that it has said."""

    def __init__(self, canaries: Canaries, database: str) -> None:
        self.canaries = canaries
        self.evolution = FakeEvolution()
        self.evolution.api_key = canaries["evolution key"]
        self.model = FakeModel()
        self.said: list[str] = []
        self.jwt_secret = canaries["jwt secret"]
        user, _, rest = url_of(database).partition("?")
        self.database = f"{user}?{rest}&password={quote(canaries['db password'])}"

    def settings(self) -> dict[str, str]:
        return {
            "VIVA_DATABASE_URL": self.database,
            "VIVA_JWT_SECRET": self.jwt_secret,
            "VIVA_MODEL_URL": str(self.model.url),
            "VIVA_MODEL_NAME": "fake",
            "VIVA_MODEL_API_KEY": self.canaries["model key"],
            "VIVA_EVOLUTION_URL": self.evolution.url,
            "VIVA_EVOLUTION_API_KEY": self.evolution.api_key,
            "VIVA_WEBHOOK_SECRET": self.canaries["hook secret"],
            "VIVA_WHATSAPP_DEBOUNCE_SECONDS": "0.05",
        }

    def token(self, scope: str | None = None) -> str:
        auth = JwtAuth((self.jwt_secret,))
        return auth.issue("ana", 3600.0, scope=scope)

    async def ask(self, server: Program, method: str, path: str, **request: Any) -> int:
        """Send a request and keep all that is answered."""
        url = URL(server.origin + path, encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, **request) as response,
        ):
            text = (await response.read()).decode(errors="replace")
            self.said.append(f"{method} {response.status} {response.headers} {text}")
            return response.status

    async def hook(
        self,
        server: Program,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask(
            server,
            "POST",
            f"{_HOOK}/messages-upsert{query}",
            data=io.BytesIO(data),  # aiohttp warns of large bytes
            headers={"Content-Type": "application/json", **(headers or {})},
        )


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


async def _webhooks(site: Site, server: Program) -> None:
    """Every sample, in each way in turn, and every way with a wrong secret."""
    right = ways_in(site.canaries["hook secret"])
    for number, body in enumerate(bodies_of(site.canaries)):
        headers, query, members = right[number % len(right)]
        status = await site.hook(
            server, {**body, **members}, headers=headers, query=query
        )
        assert status == 200, body
    for headers, query, members in ways_in(site.canaries["wrong hook secret"]):
        body = {"event": "call", **members}
        assert await site.hook(server, body, headers=headers, query=query) == 401
    # The secret where nobody would put it, in a light and in a heavy body.
    secret = site.canaries["hook secret"]
    said = {"event": "call", "instance": "loja", "data": {"text": f"it is {secret}!"}}
    heavy = {**said, "rows": [[]] * 20_000}
    for body in (said, heavy):
        assert await site.hook(server, body, headers=right[0][0]) == 200


async def _broken(site: Site, server: Program) -> None:
    """What is refused, with secrets in it."""
    secret = site.canaries["hook secret"]
    headers = {"apikey": secret}
    cut = json.dumps({"event": "call", "apikey": secret}).encode()[:-1]
    assert await site.hook(server, cut, headers=headers) == 400
    assert await site.hook(server, cut) == 401
    assert await site.hook(server, cut[:-1] + b"\xff", headers=headers) == 400
    long = history(300_000)[:-1] + json.dumps(secret).encode()
    assert await site.hook(server, long, headers=headers) == 400
    coded = {**headers, "Content-Encoding": "gzip"}
    assert await site.hook(server, cut, headers=coded) == 400
    large = (secret.encode() + b" ") * (64 * 2**20 // len(secret))
    assert await site.hook(server, large, headers=headers) == 200


async def _chats(site: Site, server: Program) -> None:
    """A person's requests, with and without success."""
    key = site.canaries["model key"]
    refusal = json.dumps({"error": {"message": f"Incorrect API key: {key}"}})
    reason = f"HTTP/1.1 401 {key}\r\nX-Key: {key}\r\nContent-Length: {len(refusal)}"
    echo = f"{reason}\r\n\r\n{refusal}".encode()
    cut = f'data: {{"error":{{"message":"{key}"}}}}\n\n'.encode()
    right = {"Authorization": f"Bearer {site.token()}"}
    wrong = {"Authorization": f"Bearer {site.canaries['wrong token']}"}
    api = "/api/v1/viva/chat"
    for script in (Script(), Script(raw=echo), Script(events=cut)):
        site.model.scripts = [script]
        for path in (api, f"{api}/stream"):
            body = {"mensagem": f"oi {time.time()}"}
            await site.ask(server, "POST", path, json=body, headers=right)
            assert await site.ask(server, "POST", path, json=body, headers=wrong) == 401
    site.model.scripts = [Script()]
    await site.ask(server, "GET", f"{api}/snapshot", headers=right)
    admin = {"Authorization": f"Bearer {site.token('admin')}"}
    for path in ("/metrics", "/ready", "/openapi.json", "/nothing", "/"):
        await site.ask(server, "GET", f"{path}?token={site.token()}", headers=admin)


async def _whatsapp(site: Site, server: Program) -> None:
    """Answers that Evolution refuses, echoing its key, and the trace of one."""
    key, hook = site.evolution.api_key, {"apikey": site.canaries["hook secret"]}
    echoes = [Fault(status, f"apikey {key} refused") for status in (401, 400, 500)]
    site.evolution.script(*echoes, Fault(201, raw=f"apikey {key}".encode()))
    admin = {"Authorization": f"Bearer {site.token('admin')}"}
    for number in range(4):
        jid = f"551198888000{number}@s.whatsapp.net"
        data = {
            "key": {"remoteJid": jid, "id": f"W{number}", "fromMe": False},
            "message": {"conversation": "oi"},
            "messageTimestamp": int(time.time()),
        }
        body = {"event": "messages.upsert", "instance": "loja", "data": data}
        assert await site.hook(server, body, headers=hook) == 200
    await until(
        lambda: sum("sendText" in path for _, path, _ in site.evolution.requests) >= 4,
        within_seconds=30,
    )
    await asyncio.sleep(0.3)
    for number in range(4):
        path = f"/api/v1/whatsapp/trace/W{number}"
        assert await site.ask(server, "GET", path, headers=admin) == 200


async def _commands(site: Site, tmp_path: Path) -> None:
    """What an operator sees, also of settings that are wrong."""
    settings, secret = site.settings(), site.canaries["hook secret"]
    file = tmp_path / "body.json"
    body = {"event": "call", "apikey": secret, "instanceToken": secret}
    file.write_text(json.dumps(body))
    wrong = {
        "VIVA_DATABASE_URL": f"postgres//{site.canaries['db password']}",
        "VIVA_JWT_SECRET": site.canaries["jwt secret"][:20],
        "VIVA_MODEL_URL": f"ftp://{site.canaries['model key']}@host",
        "VIVA_EVOLUTION_URL": f"host?apikey={site.evolution.api_key}",
        "VIVA_WEBHOOK_SECRET": f"{secret},",
        "VIVA_PORT": "eighty",
    }
    away = settings["VIVA_DATABASE_URL"].replace("host=", "host=%2Fnowhere")
    header = f"Authorization: Bearer {secret}"
    for arguments, given in (
        (["doctor"], settings),
        (["doctor"], {**settings, "VIVA_DATABASE_URL": away}),
        (["serve"], {**settings, "VIVA_DATABASE_URL": away}),
        (["migrate"], {**settings, "VIVA_DATABASE_URL": away}),
        (["serve"], wrong),
        (["doctor"], wrong),
        (["webhook", "explain", str(file), "--header", header], settings),
        (["webhook", "dead"], settings),
        (["--help"], settings),
        (["webhook", "--help"], settings),
    ):
        result = await asyncio.to_thread(run, *arguments, settings=given)
        assert result.stdout or result.stderr, arguments
        site.said.append(f"{arguments[0]} {result.stdout} {result.stderr}")


async def test_no_canary_is_found_anywhere(
    own_postgres: PostgresServer, canaries: Canaries, tmp_path: Path
) -> None:
    with own_postgres.database() as dsn:
        site = Site(canaries, dsn)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(site.evolution)
            await stack.enter_async_context(site.model)
            port = free_port()
            server = await stack.enter_async_context(
                program(
                    *("-m", "viva_server", "serve", "--log-level", "DEBUG"),
                    port=port,
                    environment={"VIVA_PORT": str(port), **site.settings()},
                )
            )
            await _webhooks(site, server)
            await _broken(site, server)
            await _chats(site, server)
            await _whatsapp(site, server)
            await _commands(site, tmp_path)
            stored = dump(dsn)
            await own_postgres.stop()
            await _webhooks_while_away(site, server)
            await own_postgres.start()
            await server.stopped()
            places = {"log": server.output, "dump": stored, "answers": ""}
            places |= {f"said {n}": text for n, text in enumerate(site.said)}
            assert len(stored) > 100_000, "the samples are there"
    found = {
        f"{place} ({text[:80]!r}): {kinds}"
        for place, text in places.items()
        if (kinds := canaries.found_in(text))
    }
    assert not found, "\n".join(sorted(found))


async def _webhooks_while_away(site: Site, server: Program) -> None:
    hook = {"apikey": site.canaries["hook secret"]}
    for body in bodies_of(site.canaries)[-6:]:
        assert await site.hook(server, body, headers=hook) in {200, 503}
    right = {"Authorization": f"Bearer {site.token()}"}
    body = {"mensagem": "oi"}
    await site.ask(server, "POST", "/api/v1/viva/chat", json=body, headers=right)
    await site.ask(server, "GET", "/ready")


@pytest.mark.parametrize("kind", ["one", "another", "third"])
def test_the_search_finds_a_secret_in_every_form(canaries: Canaries, kind: str) -> None:
    secret = canaries[kind]
    packed = [base64.b64encode(b"x" * n + secret.encode() + b"y") for n in range(3)]
    texts = [secret, quote(secret, safe=""), json.dumps({"a": secret})]
    texts += [json.dumps(dict(enumerate(secret.encode())))]
    texts += [json.dumps({"data": list(secret.encode())})]
    texts += [p.decode() for p in packed] + ["\\x" + secret.encode().hex()]
    for text in texts:
        assert canaries.found_in(f"before{text}behind") == [kind], text
    assert not canaries.found_in("canary:~0")
    assert len(set(forms_of(secret))) > 5
