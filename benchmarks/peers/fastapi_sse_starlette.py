"""The third peer: the second one with sse-starlette's EventSourceResponse."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.responses import Response

from benchmarks.peers.fastapi_app import HEADERS, create_app
from benchmarks.peers.httpx_relay import relay


def respond(events: AsyncIterator[str]) -> Response:
    """One event per piece of data, pings after 15 s of silence."""
    items = ({"data": data} async for data in events)
    return EventSourceResponse(items, headers=HEADERS)


app = create_app(relay, respond)
