"""Closing replies that nobody generates: of dead processes, and orphaned rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from viva_server.chat.ownership import LOOK_SECONDS, Ownership
from viva_server.chat.reply import LiveReply
from viva_server.errors import RowError, StoreError
from viva_server.store.driver.database import Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.processes import (
    Verdict,
    VerdictKind,
    close_dead,
    close_found,
    sweep,
)

logger = logging.getLogger(__name__)

_ORPHAN_SECONDS = 5.0
_SWEEP_SECONDS = 300.0


class Recovery:
    """Closes what dead processes left, and puts right what differs between the rows of
    this process and its `local` replies, by message id.
    """

    def __init__(
        self,
        database: Database,
        ownership: Ownership,
        local: Mapping[str, LiveReply],
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._local = local
        self._suspects: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.dead: Counter[VerdictKind] = Counter()
        """Processes that this one has declared dead."""
        self.closed = 0

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._close_forever(), name="viva recovery"),
            asyncio.create_task(self._tidy_forever(), name="viva orphans"),
        ]

    async def stop(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for task in self._tasks:
                stack.push_async_callback(end_task, task)

    async def close_found(self) -> None:
        """Close what all processes left that are registered now.

        Only for who started PostgreSQL itself, before any process begins.

        Raises:
            StoreError: or one of its kinds.
        """
        for process_id, closed in (await close_found(self._database)).items():
            self._note(Verdict(process_id, "found"), closed)

    async def _close_forever(self) -> None:
        while True:
            await self._ownership.some_dead.wait()
            self._ownership.some_dead.clear()
            for verdict in self._ownership.detector.verdicts(_now()):
                try:
                    await self._close(verdict)
                except StoreError as error:
                    logger.debug("A dead process is not closed: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _close(self, verdict: Verdict) -> None:
        me, detector = self._ownership.id, self._ownership.detector
        closed = await close_dead(
            self._database, verdict, me, lambda: verdict in detector.verdicts(_now())
        )
        if closed is not None:
            self._note(verdict, closed)

    def _note(self, verdict: Verdict, closed: list[str]) -> None:
        self.dead[verdict.kind] += 1
        self.closed += len(closed)
        logger.warning(
            "Process %s was declared dead (%s) by %s; closed %d replies of it",
            verdict.process_id,
            verdict.kind,
            self._ownership.id,
            len(closed),
        )

    async def _tidy_forever(self) -> None:
        swept_at = float("-inf")
        while True:
            try:
                if _now() - swept_at > _SWEEP_SECONDS:
                    await sweep(self._database)
                    swept_at = _now()
                await self._compare()
            except StoreError as error:
                logger.debug("No look for orphaned replies: %s", error)
            await asyncio.sleep(_ORPHAN_SECONDS)

    async def _compare(self) -> None:
        """Close rows that nobody generates, and cut replies whose row is gone.

        A start whose answer was lost can take effect after it was given up, and text
        that the database refused ends a reply without its closing; both are proven by a
        second look. A failover can lose the row of a live reply.
        """
        running = [reply for reply in self._local.values() if not reply.end_reason]
        owner = self._ownership.id
        rows = await self._database.fetch("load_owned", owner=owner)
        owned = {row.message_id for row in rows}
        for reply in running:
            if reply.message_id not in owned and not reply.end_reason:
                logger.error("The row of message %s is gone", reply.message_id)
                reply.drop()
        orphans = owned - self._local.keys()
        for message_id in orphans & self._suspects:
            logger.warning("Closing reply %s, an orphan", message_id)
            with contextlib.suppress(RowError):  # it holds up no other
                await self._database.execute(
                    "close_from_journal",
                    process_id=owner,
                    message_ids=[message_id],
                    finish_reason="crashed",
                )
        self._suspects = orphans


@contextlib.asynccontextmanager
async def recovering(database: Database, *, is_alone: bool) -> AsyncIterator[None]:
    """Close replies of dead processes for a block, without owning any.

    `is_alone`: the caller has started PostgreSQL, so that nobody else can be alive.

    Raises:
        StoreError: or one of its kinds: it cannot begin.
    """
    ownership = Ownership(database, on_fenced=lambda: None)
    recovery = Recovery(database, ownership, {})
    if is_alone:
        await recovery.close_found()
    await ownership.start()
    try:
        recovery.start()
        yield
    finally:
        await recovery.stop()
        await ownership.stop()


def _now() -> float:
    return asyncio.get_running_loop().time()
