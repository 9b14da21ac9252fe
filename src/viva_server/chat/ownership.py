"""That this process lives: its lock, its heartbeat, and what fencing means."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from viva_server.errors import StoreError
from viva_server.ids import new_id
from viva_server.store.db import Connection, Database
from viva_server.store.processes import (
    FROZEN_SECONDS,
    add_process,
    beat,
    remove_process,
    take_lock,
)
from viva_server.store.tasks import end_task

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
_AGAIN_SECONDS = 0.1
"""After a beat that failed: with the connection its lock is gone, so time is short."""


class Ownership:
    """The id under which this process owns replies, and a connection that shows it.

    When another process has declared this one dead, everything owned under the old id
    is given up (`on_fenced`), and the process goes on under a new id. `readers` tells
    how many there are here; each heartbeat writes it down.
    """

    def __init__(
        self,
        database: Database,
        on_fenced: Callable[[], None],
        readers: Callable[[], int] = int,
    ) -> None:
        self._database = database
        self._give_up = on_fenced
        self._readers = readers
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._holds_lock = False
        self._is_registered = False
        self._connected_at = 0.0
        self.connects = 0
        self.fencings = 0
        self._renew_identity()

    def _renew_identity(self) -> None:
        self.id = new_id()
        self._lock_key = secrets.randbits(63)
        self._is_registered = False
        self._holds_lock = False

    @property
    def may_judge(self) -> bool:
        """Whether this process may call others dead.

        Not within 15 s of its own reconnect: what cut it off, a failover for instance,
        may have cut off the others too. The database adds the same for its own start.
        """
        now = asyncio.get_running_loop().time()
        return self.connects == 1 or now - self._connected_at > FROZEN_SECONDS

    async def start(self) -> None:
        """Register this process.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        # Again: a host may have forked since (gunicorn --preload), and two processes
        # must never share an id.
        self._renew_identity()
        await self._connect()
        await self._beat()
        self._task = asyncio.create_task(self._run(), name="viva heartbeat")

    async def stop(self) -> None:
        """Leave in order, if the database can be reached.

        A cancellation ends the heartbeat all the same, and is raised behind that.
        """
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            if self._connection is not None:
                await self._leave(self._connection)

    async def _leave(self, connection: Connection) -> None:
        with contextlib.suppress(StoreError):
            await remove_process(connection, self.id)
        await connection.close()

    def fenced(self, owner: str) -> None:
        """Take note that the owner `owner` has been declared dead."""
        if owner != self.id:
            return
        logger.error("This process was declared dead; it gives up its live replies")
        self.fencings += 1
        self._renew_identity()
        self._give_up()

    async def _run(self) -> None:
        pause_seconds = BEAT_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                await self._beat()
                pause_seconds = BEAT_SECONDS
            except StoreError as error:
                if pause_seconds == BEAT_SECONDS:
                    logger.warning("No heartbeat: %s", error)
                pause_seconds = _AGAIN_SECONDS

    async def _beat(self) -> None:
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connect()
        if not self._is_registered:
            self._holds_lock = await add_process(connection, self.id, self._lock_key)
            self._is_registered = True
            return
        # The journal may find out first: then the answer is about the id before.
        owner = self.id
        if not await beat(connection, owner, self._readers()):
            self.fenced(owner)
        elif not self._holds_lock:
            self._holds_lock = await take_lock(connection, self._lock_key)

    async def _connect(self) -> Connection:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
            self._holds_lock = False
        self._connection = await self._database.connect()
        self.connects += 1
        self._connected_at = asyncio.get_running_loop().time()
        return self._connection
