"""Group commit of the text of all live replies of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from viva_server.chat.counters import JournalCounters
from viva_server.chat.reply import Closing, LiveReply
from viva_server.errors import (
    FencedError,
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.db import Connection, Database
from viva_server.store.replies import (
    Chunk,
    ClosedReply,
    append_chunks,
    close_replies,
)
from viva_server.store.tasks import end_task

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", Chunk, ClosedReply)

_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 1.0


class Journal:
    """The one writer of reply text in this process: a task that commits.

    Behind a commit it gives the text to the readers: it writes to the sockets of those
    clients that keep pace, and wakes the tasks of the others. It never waits for one.

    A busy journal commits at most once per tick; an idle one, an ended reply and a
    reply that lost its reader are committed at once. A batch that failed is repeated
    unchanged until it is stored: its rows name their place, so that a try whose answer
    was lost is not stored twice. It writes on a connection of its own, so that no rush
    of new requests keeps it from the text of the live replies.
    """

    def __init__(
        self,
        database: Database,
        *,
        tick_seconds: float,
        owner: Callable[[], str],
        on_fenced: Callable[[str], None],
    ) -> None:
        self._database = database
        self._tick_seconds = tick_seconds
        self._owner = owner
        self._on_fenced = on_fenced
        self._dirty: dict[str, LiveReply] = {}
        self._work = asyncio.Event()
        self._at_once = asyncio.Event()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_commit = 0.0
        self._stuck_since: float | None = None
        self._marked_at = 0.0
        self.counters = JournalCounters()

    async def start(self) -> None:
        """Connect and begin.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        await self._connected()
        self._task = asyncio.create_task(self._run(), name="viva journal")

    async def stop(self) -> None:
        """End the task; text that is not committed by now is not committed any more.

        A cancellation closes the connection all the same, and is raised then.
        """
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            if self._connection is not None:
                await self._connection.close()

    @property
    def stuck_seconds(self) -> float:
        """For how long the present commit has been failing; 0 while all is well."""
        if self._stuck_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._stuck_since

    def mark(self, reply: LiveReply, *, at_once: bool = False) -> None:
        """Note that a reply has something to commit."""
        if not self._dirty:
            self._marked_at = monotonic()
            self._work.set()
        self._dirty[reply.message_id] = reply
        if at_once:
            self._at_once.set()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            await self._wait_for_tick()
            self._work.clear()
            self._at_once.clear()
            self._last_commit = asyncio.get_running_loop().time()
            dirty = [reply for reply in self._dirty.values() if not reply.is_cut]
            self._dirty.clear()
            marked_at = self._marked_at
            owner = self._owner()
            try:
                await self._append(owner, [r for r in dirty if r.end_reason is None])
                await self._close(owner, [r for r in dirty if r.end_reason is not None])
                self.counters.lag_seconds.observe(monotonic() - marked_at)
            except FencedError:
                self.counters.fenced_writes += 1
                self._on_fenced(owner)
            except Exception:
                # A defect of ours must not silence the journal of all replies.
                logger.exception(
                    "The journal dropped a batch of %d replies", len(dirty)
                )
                for reply in dirty:
                    reply.drop()

    async def _wait_for_tick(self) -> None:
        now = asyncio.get_running_loop().time()
        rest = self._last_commit + self._tick_seconds - now
        if rest > 0 and not self._at_once.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._at_once.wait()

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.lost:
            await self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = await self._database.connect()
        return self._connection

    async def _append(self, owner: str, replies: list[LiveReply]) -> None:
        items = [(r, chunk) for r in replies if (chunk := r.take_chunk()) is not None]

        async def store(chunks: list[Chunk]) -> None:
            await append_chunks(await self._connected(), owner, chunks)

        await self._commit(items, store, LiveReply.chunk_committed)

    async def _close(self, owner: str, replies: list[LiveReply]) -> None:
        # Done without an ending: dropped, by a fence, and no business of this owner.
        live = [reply for reply in replies if not reply.done.is_set()]
        for closing in {reply.closing for reply in live}:
            items = [(r, r.take_close()) for r in live if r.closing is closing]
            await self._commit_closing(owner, closing or close_replies, items)

    async def _commit_closing(
        self, owner: str, closing: Closing, items: list[tuple[LiveReply, ClosedReply]]
    ) -> None:
        gone: set[str] = set()

        async def store(closed: list[ClosedReply]) -> None:
            stored = await closing(await self._connected(), owner, closed)
            gone.update({reply.message_id for reply in closed} - stored)

        def closed_or_gone(reply: LiveReply, closed: ClosedReply) -> None:
            if reply.message_id in gone:
                logger.error("The row of message %s is gone", reply.message_id)
                reply.drop()
            else:
                reply.close_committed(closed)

        await self._commit(items, store, closed_or_gone)

    async def _commit(
        self,
        items: list[tuple[LiveReply, _Row]],
        store: Callable[[list[_Row]], Awaitable[None]],
        stored: Callable[[LiveReply, _Row], None],
    ) -> None:
        """Store rows together or, where the database refuses one of them, singly."""
        if not items:
            return
        began = monotonic()
        try:
            await self._until_answered(lambda: store([row for _, row in items]))
        except StoreError:
            if len(items) == 1:
                logger.exception("A reply could not be stored and is cut")
                items[0][0].drop()
            for item in items if len(items) > 1 else ():
                await self._commit([item], store, stored)
            return
        self.counters.commit_seconds.observe(monotonic() - began)
        self.counters.batch_rows.observe(len(items))
        for reply, row in items:
            stored(reply, row)

    async def _until_answered(self, store: Callable[[], Awaitable[None]]) -> None:
        """Repeat a commit while the database is away or undoes it."""
        retry_seconds = _FIRST_RETRY_SECONDS
        began = asyncio.get_running_loop().time()
        while True:
            try:
                await store()
            except (StoreUnavailableError, TransientStoreError) as error:
                if self._stuck_since is None:
                    logger.warning("The journal waits for the database: %s", error)
                    self._stuck_since = began
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)
                continue
            if self._stuck_since is not None:
                logger.warning("The journal commits again")
                self._stuck_since = None
            return
