"""Events as Starlette's StreamingResponse."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from benchmarks.peers.fastapi_app import HEADERS


def respond(events: AsyncIterator[str]) -> Response:
    """One chunk per event."""
    lines = (f"data: {data}\n\n" async for data in events)
    return StreamingResponse(lines, media_type="text/event-stream", headers=HEADERS)
