"""The daily purge of a running server."""

from __future__ import annotations

import asyncio
import logging

from viva_server.config import Config
from viva_server.errors import StoreError
from viva_server.store.driver.database import Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.retention import DAY_SECONDS, Purge, was_purged

logger = logging.getLogger(__name__)

# "purg" in ASCII; no process's lock and not that of the migrations.
_LOCK_KEY = 0x70757267
_FIRST_SECONDS = 60.0  # a server that starts has other things to do
_LOOK_SECONDS = 3600.0


class Retention:
    """Purges once a day, in any one of the processes on a database.

    Does not own the database. When the last purge was is in the database, so a server
    that is started every hour purges once a day, too.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        *,
        first_seconds: float = _FIRST_SECONDS,
    ) -> None:
        self._config = config
        self._database = database
        self._first_seconds = first_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look every hour whether a purge is due."""
        self._task = asyncio.create_task(self._run(), name="viva retention")

    async def stop(self) -> None:
        """End; what is removed by then stays removed. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def purge_if_due(self) -> bool:
        """Purge unless that was done within a day, or another process is at it.

        Gives whether it purged. Raises StoreError or one of its kinds.
        """
        if await was_purged(self._database, DAY_SECONDS):
            return False
        connection = await self._database.connect()
        try:
            row = await connection.fetch_one("take_purge_lock", lock_key=_LOCK_KEY)
            if row is None or not row.held:
                return False
            # Another process may have ended its purge between the look and the lock.
            if await was_purged(self._database, DAY_SECONDS):
                return False
            await self._purge()
        finally:
            await connection.close()
        return True

    async def _purge(self) -> None:
        purge = Purge(
            self._database,
            session_days=self._config.retention_days,
            inbox_days=self._config.inbox_retention_days,
        )
        await purge.run()
        if any(purge.counts.values()):
            done = ", ".join(
                f"{number} {what}" for what, number in purge.counts.items()
            )
            logger.info("Purged: %s", done)

    async def _run(self) -> None:
        await asyncio.sleep(self._first_seconds)
        while True:
            try:
                await self.purge_if_due()
            except StoreError as error:
                logger.warning("The purge goes on later: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)
