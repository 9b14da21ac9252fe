"""The model through httpx: its stream read by hand, line by line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx

from benchmarks.peers.settings import MODEL_NAME, MODEL_URL

client = httpx.AsyncClient(
    base_url=MODEL_URL,
    timeout=httpx.Timeout(60.0, connect=5.0),
    # The default of 100 connections would queue all larger runs.
    limits=httpx.Limits(max_connections=None),
)


async def relay(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """The deltas of one reply."""
    body = {"model": MODEL_NAME, "messages": messages, "stream": True}
    async with client.stream("POST", "/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            choices = json.loads(line[6:])["choices"]
            if choices and (delta := choices[0]["delta"].get("content")):
                yield delta
