"""Streams and webhooks through the nginx and the HAProxy of docs/deploy."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any

import pytest

from tests.acceptance.proxy_site import WEBHOOK_SECRET, Site, person
from tests.chat_host import PREFIX, token
from tests.fakes.script import reply_to
from tests.postgres import run_sql
from tests.proxies import CONFIGURATIONS
from tests.streams import text_of
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20


async def test_tokens_arrive_while_the_model_still_talks(proxy_site: Site) -> None:
    message = "one by one model:tokens=12,interval_ms=150"
    seen: list[int] = []
    async with person(proxy_site, "one") as one, one.stream(message) as stream:
        await stream.event()
        for _ in range(3):
            await stream.event()
            seen.append(len(proxy_site.request(message).sent))
        ended = proxy_site.request(message).ended
        rest = await stream.rest()

    assert seen[0] < 12
    assert ended == ""
    assert rest[-1].data["status"] == "complete"


async def test_a_keep_alive_arrives_while_the_model_is_silent(proxy_site: Site) -> None:
    message = "silent model:tokens=1,first_ms=16500"
    async with person(proxy_site, "silent") as ana, ana.stream(message) as stream:
        await stream.event()
        chunk = await stream.response.content.readany()
        sent = proxy_site.request(message).sent[:]
        rest = await stream.rest()

    assert chunk == b": keep-alive\n"
    assert sent == []
    assert rest[-1].data["status"] == "complete"


def timeouts(name: str, words: tuple[str, ...]) -> list[int]:
    lines = (CONFIGURATIONS / name).read_text("utf-8").splitlines()
    return [
        int(line.strip().removeprefix(word).strip().split()[0].rstrip("s;"))
        for line in lines
        for word in words
        if line.strip().startswith(word)
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nginx.conf", ("proxy_read_timeout",)),
        ("haproxy.cfg", ("timeout client", "timeout server")),
    ],
)
async def test_no_time_out_ends_a_stream_between_two_keep_alives(
    name: str, words: tuple[str, ...]
) -> None:
    found = timeouts(name, words)
    assert len(found) > 1
    assert min(found) > 3 * 15
    text = (CONFIGURATIONS / name).read_text("utf-8")
    assert "630s" in text  # VIVA_REPLY_SECONDS and some more, without a stream


async def test_a_reply_resumes_on_other_processes(proxy_site: Site) -> None:
    message = "resumed model:tokens=40,interval_ms=50"
    async with person(proxy_site, "resumed") as ana:
        async with ana.stream(message) as stream:
            accepted = await stream.event()
            cursor = (await stream.event()).id
        seen = stream.raw.decode()

        async def rest() -> str:
            async with ana.resume(accepted.data["message_id"], cursor) as again:
                first = await again.event()
                assert first.data["resumed"] is True
                return text_of(await again.rest())

        texts = await asyncio.gather(*(rest() for _ in range(6)))
    offset = int(cursor.rpartition(":")[2])
    whole = reply_to(message)
    assert json.dumps(whole[:3], ensure_ascii=False)[1:-1] in seen
    assert set(texts) == {whole[offset:]}
    line = f"GET {PREFIX}/viva/chat/stream/{{message_id}} 200"
    await until(lambda: len(proxy_site.served(line)) >= 2)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_client_that_leaves_is_noticed_behind_the_proxy(
    proxy_site: Site, version: str
) -> None:
    # aiohttp says good-bye in TLS and waits; curl closes, as a browser does.
    message = f"leaving {version} model:tokens=2,interval_ms=20000"
    command = ["curl", "-sS", "-N", "-k", version, "--json", "@-"]
    command += ["-H", f"Authorization: Bearer {token('leaving ' + version)}"]
    curl = await asyncio.create_subprocess_exec(
        *command,
        f"{proxy_site.proxy.origin}{PREFIX}/viva/chat/stream",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdin is not None
    assert curl.stdout is not None
    curl.stdin.write(json.dumps({"mensagem": message}).encode())
    curl.stdin.close()
    head = await curl.stdout.readuntil(b"content")
    message_id = head.split(b":")[1].strip().decode()
    curl.terminate()
    await curl.wait()
    sql = "SELECT left_at FROM viva.live_replies WHERE message_id = '{}'"
    sql = sql.format(message_id)
    await until(lambda: run_sql(proxy_site.fleet.dsn, sql)[0][0] is not None, 5.0)
    async with person(proxy_site, f"leaving {version}") as ana:
        await ana.post(f"/viva/chat/stream/{message_id}/stop")


async def test_the_clients_address_arrives_and_cannot_be_forged(
    proxy_site: Site,
) -> None:
    # Bound to another loopback address: the proxy's own is 127.0.0.1.
    async with person(proxy_site, "address", local_addr=("127.0.0.9", 0)) as ana:
        headers = {"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "address"}
        await ana.get("/viva/chat/sessions", headers=headers)
    await until(lambda: proxy_site.served("id=address from="))
    [server] = proxy_site.served("id=address from=")

    assert "id=address from=127.0.0.9" in server.log


def media(size: int) -> BytesIO:
    """Make a webhook's body of about that size."""
    data = {"key": {"id": f"big {size}"}, "message": {"base64": "A" * size}}
    body = {"event": "messages.upsert", "instance": "viva", "data": data}
    return BytesIO(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("size", "secret", "status", "member"),
    [
        (64 * MIB - 1000, WEBHOOK_SECRET, 200, {"processed": True}),
        (66 * MIB, WEBHOOK_SECRET, 200, {"processed": False, "ignored": "too large"}),
        (32 * MIB, "wrong", 401, {"code": "wrong_secret"}),
    ],
)
async def test_a_large_webhook_gets_the_servers_own_answer(
    proxy_site: Site, size: int, secret: str, status: int, member: dict[str, Any]
) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    async with person(proxy_site, "evolution") as evolution:
        evolution.headers = headers
        answer = await evolution.post("/webhook/evolution", data=media(size))

    assert answer.status == status
    assert answer.json == {**answer.json, **member}


async def test_a_question_that_is_too_large_gets_the_servers_own_answer(
    proxy_site: Site,
) -> None:
    async with person(proxy_site, "large") as ana:
        body = BytesIO(json.dumps({"mensagem": "a" * (MIB + MIB // 2)}).encode())
        headers = {"Content-Type": "application/json"}
        answer = await ana.post("/viva/chat", data=body, headers=headers)
    assert (answer.status, answer.json["code"]) == (413, "too_large")
