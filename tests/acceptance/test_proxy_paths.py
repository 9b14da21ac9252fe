"""The paths of webhooks through the nginx and the HAProxy of docs/deploy."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.acceptance.proxy_site import (
    WEBHOOK_SECRET,
    Site,
    certificate_of_the_tests,
    person,
)
from tests.chat_host import PATIENCE_SECONDS, PREFIX
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

WEBHOOK = f"{PREFIX}/webhook/evolution"
FORMS = (
    "",
    "/",
    "/messages-upsert",
    "/messages-upsert/",
    "//messages-upsert",
    "///messages-upsert//",
    "/MESSAGES_UPSERT",
    "/a/b",
    "/a%2Fmessages-upsert",
    "/%2e%2e/messages-upsert",
    "/./messages-upsert",
    "/x/../messages-upsert",
    "/messages%20upsert",
    "/messages%0Aupsert",
    "/messages%3Fupsert",
    "/mensagens-%C3%A7",
    "/%E7",
    "/%25",
    "/messages-upsert?",
    "?a=%2F%2F",
)
# What is no path at all; no version of Evolution writes it.
BROKEN_FORMS = ("/%zz", "/%00")


async def deliver(port: int, form: str, *, tls: bool) -> tuple[int, str]:
    """Send a webhook to a path as bytes; give the status and the stored event."""
    context = certificate_of_the_tests() if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    body = json.dumps({"data": {"form": form}}).encode()
    head = (
        f"POST {WEBHOOK}{form} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {WEBHOOK_SECRET}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + body)
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await reader.read()
    finally:
        writer.close()
    start, _, rest = answer.partition(b"\r\n\r\n")
    status = int(start.split(b" ")[1])
    return status, json.loads(rest)["event"] if status == 200 else ""


async def test_every_form_of_a_webhooks_path_arrives_as_it_was_written(
    proxy_site: Site,
) -> None:
    direct = proxy_site.fleet.servers[0].port
    wanted = {form: await deliver(direct, form, tls=False) for form in FORMS}
    found = {
        form: await deliver(proxy_site.proxy.port, form, tls=True) for form in FORMS
    }

    assert found == wanted
    assert {status for status, _ in found.values()} == {200}


async def test_what_is_no_path_is_refused_by_nginx_only(proxy_site: Site) -> None:
    found = [
        await deliver(proxy_site.proxy.port, form, tls=True) for form in BROKEN_FORMS
    ]
    assert {status for status, _ in found} == {
        "nginx": {400},
        "haproxy": {200},
    }[proxy_site.proxy.name]


async def test_a_webhooks_secret_does_not_reach_the_proxys_log(
    proxy_site: Site,
) -> None:
    path = f"/webhook/evolution/logged?token={WEBHOOK_SECRET}"
    async with person(proxy_site, "logged") as evolution:
        evolution.headers = {}
        answer = await evolution.post(path, {"data": {}})
    await until(lambda: "/webhook/evolution/logged" in proxy_site.proxy.log)

    assert answer.status == 200
    assert WEBHOOK_SECRET not in proxy_site.proxy.log
