"""The model through its vendor's client, as most do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from benchmarks.peers.settings import MODEL_NAME, MODEL_URL

client = AsyncOpenAI(
    base_url=MODEL_URL,
    api_key="none",
    # The default of 1000 connections would queue the runs with 2000 streams.
    http_client=DefaultAsyncHttpxClient(limits=httpx2.Limits(max_connections=None)),
)


async def relay(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """The deltas of one reply."""
    stream = await client.chat.completions.create(
        model=MODEL_NAME, messages=cast("Any", messages), stream=True
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content
