"""How late the event loop is: sampled, since nothing tells of it."""

from __future__ import annotations

import asyncio

from viva_server.tallies import Buckets

_SAMPLE_SECONDS = 0.25


class LoopLag:
    """Samples by how much the running loop wakes a task too late."""

    def __init__(self) -> None:
        self.seconds = Buckets()

    async def run(self) -> None:
        """Sample until this is cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + _SAMPLE_SECONDS
            await asyncio.sleep(_SAMPLE_SECONDS)
            self.seconds.observe(max(0.0, time() - due))
