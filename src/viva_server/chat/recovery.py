"""Closing the replies of dead processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from viva_server.chat.ownership import Ownership
from viva_server.errors import StoreError
from viva_server.store.db import Database
from viva_server.store.processes import bury, find_silent, sweep
from viva_server.store.tasks import end_task

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_SWEEP_SECONDS = 300.0


class Recovery:
    """Looks for dead processes and closes what they left, in any process.

    `sole` says that no other process can use the database (the embedded one): whoever
    is registered beside this process at its start is dead, whatever the time.
    """

    def __init__(self, database: Database, ownership: Ownership, *, sole: bool) -> None:
        self._database = database
        self._ownership = ownership
        self._sole = sole
        self._task: asyncio.Task[None] | None = None
        self._swept_at = float("-inf")
        self.buried = 0
        self.closed = 0

    async def start(self) -> None:
        """Close what dead processes have left, then go on looking."""
        with contextlib.suppress(StoreError):
            await self._look(sole=self._sole)
        self._task = asyncio.create_task(self._run(), name="viva recovery")

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look(sole=False)
                await self._sweep()
            except StoreError as error:
                logger.debug("No look for dead processes: %s", error)

    async def _look(self, *, sole: bool) -> None:
        if not self._ownership.may_judge:
            return
        for process_id in await find_silent(
            self._database, self._ownership.id, sole=sole
        ):
            closed = await bury(self._database, process_id, sole=sole)
            if closed is not None:
                self.buried += 1
                self.closed += len(closed)
                logger.warning(
                    "Process %s is dead; closed %d replies of it",
                    process_id,
                    len(closed),
                )

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._swept_at > _SWEEP_SECONDS:
            self._swept_at = now
            await sweep(self._database)
