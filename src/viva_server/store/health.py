"""Whether the database takes work, by what was stored and by a probe."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from viva_server.errors import (
    PoolFullError,
    RowError,
    StoreError,
    StoreLockedError,
    TransientStoreError,
)
from viva_server.store.driver.database import Connection, Database, Statements
from viva_server.store.driver.queries import find_query
from viva_server.store.driver.tasks import end_task

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2.0
_PROBE_AGAIN_SECONDS = 0.5
"""While it fails, so that the end of a fault is seen soon."""

FAILING_SECONDS = 1.0
"""What fails for less is a hiccup, which the caller's own repeats get over."""

_QUERY_SECONDS = 3.0

CLOCK_SECONDS = 60.0
"""By how much the clocks of this machine and of PostgreSQL's may differ."""

_STORING = ("start_reply", "append_chunks", "close_replies", "add_webhooks", "beat")
_WRITTEN_TABLE = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (viva\.\w+)")
_PARAMETER = re.compile(r"%\(\w+\)s")


class Health:
    """Whether a start, a commit or a webhook can be stored now; answered from memory.

    Those who store say how it went, and between them the probe, so that a failure that
    nobody repeats has an end. All times are of `time.monotonic`.
    """

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._stored_at = float("-inf")
        self._attempts: dict[object, float] = {}
        self._failure = "it does not answer"
        self._was_well = True
        # How far the database's clock is ahead of this machine's.
        self.clock_offset_seconds = 0.0
        self.nudge = asyncio.Event()

    @property
    def is_well(self) -> bool:
        """Whether storing works, or has failed or hung for less than a second."""
        since = min(self._attempts.values(), default=self._failing_since)
        if self._failing_since is not None and since is not None:
            since = min(since, self._failing_since)
        if since is None:
            return True
        return monotonic() - max(since, self._stored_at) < FAILING_SECONDS

    @property
    def clocks_agree(self) -> bool:
        """Whether an age that was measured by both clocks means anything."""
        return abs(self.clock_offset_seconds) <= CLOCK_SECONDS

    def compare_clocks(self, offset_seconds: float) -> None:
        """Note how far the database's clock is ahead; tell when that changes much."""
        did_agree = self.clocks_agree
        self.clock_offset_seconds = offset_seconds
        if did_agree and not self.clocks_agree:
            logger.error(
                "PostgreSQL's clock is %.0f s ahead of this machine's: nothing is "
                "purged, and no WhatsApp message is too old, until they agree",
                offset_seconds,
            )
        elif self.clocks_agree and not did_agree:
            logger.warning("PostgreSQL's clock and this machine's agree again")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Have what a block stores counted while nobody knows yet how it goes.

        For those with a connection of their own: the wait for one of the pool says
        nothing of the database.
        """
        key = object()
        self._attempts[key] = monotonic()
        try:
            yield
        finally:
            del self._attempts[key]

    def stored(self) -> None:
        """Note that something was stored."""
        self._stored_at = monotonic()
        self._failing_since = None

    def failed(self, since: float, error: StoreError) -> None:
        """Note what could not be stored, tried since `since` (monotonic).

        What PostgreSQL undid, a full pool of ours and a row at fault say nothing of
        the database.
        """
        if isinstance(error, PoolFullError | RowError) or (
            isinstance(error, TransientStoreError)
            and not isinstance(error, StoreLockedError)
        ):
            return
        self._failure = str(error)
        if self._failing_since is None:
            self._failing_since = since
            self.nudge.set()

    def tell(self) -> None:
        """Log a change of `is_well`, once, however many requests have met it."""
        if self.is_well == self._was_well:
            return
        self._was_well = self.is_well
        if self._was_well:
            logger.warning("The database takes work again")
        else:
            logger.warning("The database takes no work: %s", self._failure)


class Probe:
    """Looks every 2 s whether the tables may be written and are not locked.

    It has a connection of its own and writes nothing: the heartbeat does.
    """

    def __init__(self, database: Database, health: Health) -> None:
        self._database = database
        self._health = health
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="viva probe")

    async def stop(self) -> None:
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _run(self) -> None:
        health = self._health
        pause_seconds = 0.0  # at once, for the clocks
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await health.nudge.wait()
            health.tell()
            began = monotonic()
            try:
                with health.attempt():
                    await self._probe()
            except StoreError as error:
                health.failed(began, error)
                pause_seconds = 0.0
            else:
                health.stored()
                pause_seconds = PROBE_SECONDS - _PROBE_AGAIN_SECONDS
            health.nudge.clear()
            health.tell()
            await asyncio.sleep(_PROBE_AGAIN_SECONDS)

    async def _probe(self) -> None:
        if self._connection is None or self._connection.lost:
            if self._connection is not None:
                await self._connection.close()
            self._connection = None  # should the next line fail
            self._connection = await self._database.connect(
                query_seconds=_QUERY_SECONDS
            )
        self._health.compare_clocks(await clock_offset_seconds(self._connection))
        for script in _probes():
            await self._connection.execute_script(script)


async def clock_offset_seconds(database: Statements) -> float:
    """Give how far the database's clock is ahead of this machine's."""
    before = time.time()
    [row] = await database.fetch("read_clock")
    return float(row.epoch) - (before + time.time()) / 2


@functools.cache
def _probes() -> tuple[str, ...]:
    """Give the probe's transactions: each table locked, each statement explained.

    One table a transaction: a probe that held one and waited for the next would
    deadlock with a migration. EXPLAIN holds several, so it waits for less than the
    time after which PostgreSQL looks for deadlocks (deadlock_timeout, 1 s); it checks
    the rights on every table and column, and runs nothing.
    """
    queries = [_PARAMETER.sub("NULL", find_query(name).sql) for name in _STORING]
    tables = sorted({table for sql in queries for table in _WRITTEN_TABLE.findall(sql)})
    return (
        *(
            f"SET LOCAL lock_timeout = '1s'; LOCK TABLE {table} IN ROW EXCLUSIVE MODE"
            for table in tables
        ),
        *(
            f"SET LOCAL lock_timeout = '100ms'; EXPLAIN {statement}"
            for sql in queries
            for statement in sql.replace("%%", "%").split(";")
        ),
    )
