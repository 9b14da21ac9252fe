"""A browser's own EventSource behind a proxy that cuts its connections."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from playwright.async_api import Page, async_playwright

from tests.chat_host import chat_host, serving, token
from tests.dictation import Dictated, Dictation


class CuttingProxy:
    """Adds a token, since EventSource sends no headers, and cuts connections."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self._base = base
        self._session = session
        self.cursors: list[str | None] = []
        self.statuses: list[int] = []
        self.cuts = [4, 3, 3]
        """After how many events each connection is cut, inside the next; then none."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self.page)
        app.router.add_get("/stream/{message_id}", self.stream)
        return app

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>x</title>", content_type="text/html"
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        cursor = request.headers.get("Last-Event-ID")
        self.cursors.append(cursor)
        headers = {"Authorization": f"Bearer {token()}"}
        headers |= {} if cursor is None else {"Last-Event-ID": cursor}
        url = f"{self._base}/viva/chat/stream/{request.match_info['message_id']}"
        async with self._session.get(url, headers=headers) as upstream:
            self.statuses.append(upstream.status)
            response = web.StreamResponse(
                status=upstream.status,
                headers={
                    name: upstream.headers[name]
                    for name in ("Content-Type", "Cache-Control")
                    if name in upstream.headers
                },
            )
            await response.prepare(request)
            events = self.cuts.pop(0) if self.cuts else 1_000_000
            async for chunk in upstream.content.iter_any():
                events -= chunk.count(b"\n\n")
                if events < 0:
                    await response.write(chunk[:20])
                    assert request.transport is not None
                    request.transport.close()  # what is written still arrives
                    break
                await response.write(chunk)
        return response


FOLLOW = """
url => new Promise(resolve => {
  const seen = { messages: [], errors: 0 };
  const source = new EventSource(url);
  source.onmessage = ({ lastEventId, data, type }) =>
    seen.messages.push({ lastEventId, data, type });
  source.onerror = () => {
    seen.errors += 1;
    if (source.readyState === EventSource.CLOSED) resolve(seen);
  };
})
"""

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def chromium_page(origin: str) -> AsyncIterator[Page]:
    """Open a page in Debian's chromium."""
    path = shutil.which("chromium")
    assert path is not None, "chromium is not installed"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=CHROMIUM_FLAGS
        )
        page = await browser.new_page()
        await page.goto(origin + "/")
        yield page
        await browser.close()


async def talk(reply: Dictated, proxy: CuttingProxy) -> str:
    """Talk until all cuts are done and the browser has come back; give the text."""
    text = ""
    while proxy.cuts or len(proxy.cursors) < 4:
        text += (part := f"parte {len(text)} 😀 ")
        reply.say(part)
        await asyncio.sleep(0.05)
    reply.end()
    return text


async def test_a_browsers_event_source_resumes_by_itself_and_stops_at_204(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with (
        chat_host(database_url, dictation) as host,
        host.ana.stream("oi") as stream,
    ):
        proxy = CuttingProxy(host.ana.base, host.session)
        message_id = (await stream.event()).data["message_id"]
        talking = asyncio.create_task(talk(await dictation.begun(), proxy))
        async with serving(proxy.app()) as front, chromium_page(front.origin) as page:
            seen = await page.evaluate(FOLLOW, f"/stream/{message_id}")
        text = await talking
        snapshot = await host.ana.snapshot()
    data = [json.loads(message["data"]) for message in seen["messages"]]
    content = [each["content"] for each in data if "content" in each]
    assert "".join(content) == text == snapshot["messages"][-1]["conteudo"]
    assert {message["type"] for message in seen["messages"]} == {"message"}
    # The browser itself sent the cursor, on each reconnect a later one.
    assert proxy.statuses == [200] * (len(proxy.statuses) - 1) + [204]
    assert len(proxy.statuses) == 5
    assert proxy.cursors[0] is None
    assert proxy.cursors[-1] == f"{message_id}:end"
    offsets = [int(str(c).rpartition(":")[2]) for c in proxy.cursors[1:-1]]
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0
    assert [each["offset"] for each in data if "accepted" in each][1:] == offsets
    assert [each for each in data if each.get("done")] == [data[-1]]
