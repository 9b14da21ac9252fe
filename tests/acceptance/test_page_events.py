"""The web chat's parser of events, in a real Chromium, beside the server's own."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser import ChatPage
from viva_server.responders.sse_decoder import SseDecoder

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMS = [
    'id: m:0\nretry: 1000\ndata: {"a":true}\n\n: keep-alive\nid: m:5\ndata: é😀\n\n',
    "\ufeffdata:a\r\ndata:  b\r\rid\ndata\n\ndata: c\r\n\r\n",
    "id: 1\n\ndata: keeps its id\n\nid: a\0b\ndata: x\n\nnothing: y\n\ndata: cut off",
    "\n\n\r\r: only comments\n\ndata\n\ndata:\n\ndata: \u2028\u0085\n\n",
    "event: named\ndata: a:b: c\nid:: \n\n\ufeffdata: no mark here\n\n",
]
PARSE = """async (pieces) => {
  const { EventParser } = await import("/sse.js");
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(piece));
}"""


@pytest.mark.parametrize("stream", STREAMS)
async def test_events_are_what_the_server_s_decoder_says_however_they_are_cut(
    chat: ChatPage, stream: str
) -> None:
    await chat.page.goto(chat.origin)
    await expect(chat.page.locator("#access")).to_be_visible()
    expected = [
        {"id": event.id, "data": event.data}
        for event in SseDecoder().feed(stream.encode())
    ]
    cuts = [[stream], list(stream)]
    cuts += [[stream[:place], stream[place:]] for place in range(len(stream))]

    for pieces in cuts:
        assert await chat.page.evaluate(PARSE, pieces) == expected
