"""That this process lives: its lock, its heartbeat, its looks at the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from viva_server.chat.failure_detector import FailureDetector
from viva_server.errors import StoreError, StoreUnavailableError
from viva_server.store.driver.database import Connection, Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.processes import Death, Seen, add_process
from viva_server.values import new_id

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
LOOK_SECONDS = 0.1
"""Between two looks, and after a heartbeat that failed."""
PATIENCE_SECONDS = 5.0
"""For an answer; then another connection is made beside the silent one."""
KEPT_SECONDS = 15.0
"""For how long a silent connection is kept, since its lock says that this one lives."""

SILENT_SECONDS = 1.5
"""An owner that stood still for so long may be dead: ask again later."""
_LEAVING_SECONDS = 1.0

_Answer = TypeVar("_Answer")


class Ownership:
    """The id under which this process owns replies, and a connection that shows it.

    It beats twice a second, and on the same connection looks at the others ten times a
    second; what it sees is in `detector`, and `some_dead` is set while somebody is dead
    by that. When another process has declared this one dead, everything owned under
    the old id is given up (`on_fenced`), and the process goes on under a new id at
    once. `readers` tells how many there are here; each heartbeat writes it down.
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
        self._beat_due = 0.0
        self._has_retaken = False
        self._is_silent = False
        self._dead_id: str | None = None
        self.fencings = 0
        self.detector = FailureDetector()
        self.some_dead = asyncio.Event()
        self._renew_identity()

    def _renew_identity(self) -> None:
        self.id = new_id()
        self._is_registered = False
        self._beat_due = 0.0

    async def start(self) -> None:
        """Register this process and begin.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        # Again: a host may have forked since (gunicorn --preload), and two processes
        # must never share an id.
        self._renew_identity()
        await self._step()
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
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_LEAVING_SECONDS):
                await connection.execute("remove_process", process_id=self.id)
        await connection.close()

    def is_silent(self, owner: str | None) -> bool:
        """Whether another process has stood still for 1.5 s, by the looks from here."""
        return self.detector.silent_seconds(owner or "") >= SILENT_SECONDS

    def fenced(self, owner: str) -> None:
        """Take note that the owner `owner` has been declared dead."""
        if owner != self.id:
            return
        self.fencings += 1
        self._dead_id = owner
        self._renew_identity()
        logger.error(
            "This process was declared dead; it gives up its live replies and goes on "
            "as %s",
            self.id,
        )
        self._give_up()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._step()
                if self._is_silent:
                    logger.warning("The heartbeat is back")
                self._is_silent = False
            except StoreError as error:
                if not self._is_silent:
                    logger.warning("No heartbeat: %s", error)
                self._is_silent = True

    async def _step(self) -> None:
        """Beat, if it is time to, and look."""
        if self._connection is None or self._connection.lost:
            await self._connect()
        began = _now()
        if began >= self._beat_due:
            await self._beat()
            self._beat_due += BEAT_SECONDS
            if self._beat_due <= began:  # late: none is made up for
                self._beat_due = began + BEAT_SECONDS
        await self._look()

    async def _beat(self) -> None:
        if not self._is_registered:
            await self._register()
        # The journal may find out first: then the answer is about the id before.
        owner = self.id
        beating = self._open_connection().execute(
            "beat",
            process_id=owner,
            readers=self._readers(),
            keeps_key=not self.detector.is_pooled,
        )
        if not await self._answered(beating):
            self.fenced(owner)
            await self._register()
            return
        self.detector.beaten(_now())
        if self._dead_id is not None:
            await self._say_who_declared(self._dead_id)

    async def _look(self) -> None:
        me, asked_at = self.id, _now()
        looking = self._open_connection().fetch("look_at_processes", Seen)
        seen = await self._answered(looking)
        mine = next((each for each in seen if each.id == me), None)
        if mine is None:
            self.fenced(me)
            await self._register()
            return
        self.detector.looked(asked_at, _now(), me, seen)
        if mine.is_locked is False:
            await self._retake_lock()
        if self.detector.verdicts(_now()):
            self.some_dead.set()

    async def _retake_lock(self) -> None:
        """Take the lock again that this connection should have.

        It may have been given up with a connection that was about to take this one's
        place. The second time it is a pooler's doing: see `FailureDetector.is_pooled`.
        """
        if self._has_retaken:
            self.detector.is_pooled = True
            return
        self._has_retaken = True
        await self._answered(self._take_lock(self._open_connection()))

    def _take_lock(self, connection: Connection) -> Coroutine[Any, Any, int]:
        """Take the lock that says "alive" under a new key, which nobody else has.

        The statement gives 0 when this process has been declared dead.
        """
        return connection.execute(
            "take_process_lock", process_id=self.id, lock_key=secrets.randbits(63)
        )

    async def _register(self) -> None:
        connection, me = self._open_connection(), self.id
        adding = add_process(connection, me, secrets.randbits(63))
        if not await self._answered(adding):
            self.fenced(me)
        self._is_registered = me == self.id

    async def _say_who_declared(self, dead_id: str) -> None:
        connection = self._open_connection()
        asking = connection.fetch_one("load_death", Death, process_id=dead_id)
        death = await self._answered(asking)
        self._dead_id = None
        if death is None:
            logger.error("The row of process %s is lost", dead_id)
        else:
            logger.error(
                "Process %s was declared dead by %s (%s)", dead_id, death.by, death.kind
            )

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise StoreUnavailableError("there is no connection for the heartbeat")
        return self._connection

    async def _answered(self, statement: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for an answer; while it stays out, make another connection beside.

        The silent connection, and so its lock, stays until another one has taken its
        place or its 15 s are over.

        Raises:
            StoreError: or one of its kinds; `StoreUnavailableError` also where another
                connection has taken the place of the silent one.
        """
        running = asyncio.create_task(statement)
        try:
            await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
            if not running.done():
                logger.warning("The heartbeat's connection is silent")
                connecting = asyncio.create_task(self._connect_in_time())
                await asyncio.wait(
                    {running, connecting}, return_when=asyncio.FIRST_COMPLETED
                )
                await end_task(connecting)
        except asyncio.CancelledError:
            running.cancel()
            raise
        return await running

    async def _connect_in_time(self) -> None:
        while True:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._connect()
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _connect(self) -> None:
        """Put a new connection, with a lock of its own, in the place of the old one."""
        connection = await self._database.connect(query_seconds=KEPT_SECONDS)
        try:
            owner = self.id
            if self._is_registered and not await self._take_lock(connection):
                self.fenced(owner)
        except BaseException:
            await connection.close()
            raise
        old, self._connection = self._connection, connection
        self._has_retaken = False
        self.detector.connected()
        if old is not None:
            await old.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
