"""Group commit of the text of all live replies of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from viva_server.chat.reply import Closing, LiveReply
from viva_server.counters import JournalCounters
from viva_server.errors import (
    FencedError,
    RowError,
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.database import Connection, Database, Statements
from viva_server.store.driver.tasks import end_task
from viva_server.store.health import Health
from viva_server.store.replies import (
    Chunk,
    ClosedReply,
    append_chunks,
    close_replies,
)

logger = logging.getLogger(__name__)

_Row = Chunk | ClosedReply
_Item = tuple[LiveReply, _Row]
_Store = Callable[[Statements, Sequence[Any]], Awaitable[None]]
_Stored = Callable[[LiveReply, Any], None]

_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 0.5
_SINGLY_SECONDS = 1.0
"""How long the rows of a refused batch are tried one by one while none is stored."""

_REFUSED_IN_A_ROW = 8
"""So many single rows refused, and none stored: it is the database, not the rows."""

_HELD_AT_ONCE = 2
"""Statements of held rows, which take connections of the pool."""


class Journal:
    """The one writer of reply text in this process: a task that commits.

    Behind a commit it gives the text to the readers: it writes to the sockets of those
    clients that keep pace, and wakes the tasks of the others. It never waits for one.

    A busy journal commits at most once per tick; an idle one, an ended reply and a
    reply that lost its reader are committed at once. A row that was not stored is
    repeated unchanged until it is: it names its place, so that an attempt whose answer
    was lost is not stored twice. The journal writes on a connection of its own, so that
    no rush of new requests keeps it from the text of the live replies.

    A batch that the database refuses goes row by row. A row that is refused while
    others are stored is *held*: a task of its own repeats it, and the others go on. A
    row that can never be stored (`RowError`) costs its reply: that is cut and closed
    with what is stored, as `crashed`.
    """

    def __init__(
        self,
        database: Database,
        *,
        tick_seconds: float,
        owner: Callable[[], str],
        on_fenced: Callable[[str], None],
        health: Health,
    ) -> None:
        self._database = database
        self._tick_seconds = tick_seconds
        self._owner = owner
        self._on_fenced = on_fenced
        self._health = health
        self._dirty: dict[str, LiveReply] = {}
        # Taken from their replies and not stored yet, each reply once.
        self._unstored: dict[str, _Item] = {}
        self._held: dict[str, float] = {}
        self._held_tasks: set[asyncio.Task[None]] = set()
        self._held_turn = asyncio.Semaphore(_HELD_AT_ONCE)
        self._work = asyncio.Event()
        self._at_once = asyncio.Event()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_commit = float("-inf")
        self._tried_since = 0.0
        self._stuck_since: float | None = None
        self._retry_seconds = 0.0
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
        for task in self._held_tasks:
            task.cancel()
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            if self._connection is not None:
                await self._connection.close()

    @property
    def stuck_seconds(self) -> float:
        """For how long the present commit has been failing; 0 while all is well.

        It follows from the rows that wait, so that it ends with the last of them:
        stored, or dropped with its reply, by a fence for instance.
        """
        if self._stuck_since is None or not self._waits():
            return 0.0
        return monotonic() - self._stuck_since

    def held_seconds(self, reply: LiveReply) -> float:
        """For how long a reply has waited for its next commit; 0 while all is well."""
        since = self._held.get(reply.message_id)
        if since is None:
            return self.stuck_seconds
        return monotonic() - since

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
            marked_at = self._marked_at
            self._take()
            with self._health.attempt():
                await self._round(self._owner())
            if self._waits():
                await self._back_off()
            else:
                self._unstuck()
                self.counters.lag_seconds.observe(monotonic() - marked_at)

    def _take(self) -> None:
        """Take one row of each reply that has something and for which none waits."""
        dirty, self._dirty = self._dirty, {}
        for message_id, reply in dirty.items():
            # Marked again when its row is stored.
            if reply.is_cut or message_id in self._unstored or message_id in self._held:
                continue
            if reply.end_reason is None:
                if (chunk := reply.take_chunk()) is not None:
                    self._unstored[message_id] = (reply, chunk)
            elif not reply.done.is_set():
                self._unstored[message_id] = (reply, reply.take_close())

    def _waits(self) -> bool:
        """Whether a row waits; those of dropped replies do not, nor the held ones."""
        return any(not reply.done.is_set() for reply, _ in self._unstored.values())

    async def _round(self, owner: str) -> None:
        """Try once to store all that waits; what stays in `_unstored` is not."""
        self._tried_since = monotonic()
        waiting = [
            (r, row) for r, row in self._unstored.values() if not r.done.is_set()
        ]
        self._unstored = {reply.message_id: (reply, row) for reply, row in waiting}
        chunks = [item for item in waiting if isinstance(item[1], Chunk)]
        endings = [item for item in waiting if isinstance(item[1], ClosedReply)]
        try:
            for store, items in ((self._append, chunks), (self._close, endings)):
                try:
                    await store(owner, items)
                except (StoreUnavailableError, TransientStoreError) as error:
                    self._note_failure(error)
        except FencedError:
            self._fence(owner)
        except Exception:
            # A defect of ours must not silence the journal of all replies.
            logger.exception("The journal dropped a batch of %d replies", len(waiting))
            for reply, _ in waiting:
                reply.drop()

    async def _back_off(self) -> None:
        await asyncio.sleep(self._retry_seconds or _FIRST_RETRY_SECONDS)
        doubled = max(self._retry_seconds * 2, _FIRST_RETRY_SECONDS)
        self._retry_seconds = min(doubled, _LONGEST_RETRY_SECONDS)
        self._work.set()

    def _note_failure(self, error: StoreError) -> None:
        if self._stuck_since is None:
            logger.warning("The journal waits for the database: %s", error)
            self._stuck_since = self._tried_since
        self._health.failed(self._stuck_since, error)

    def _unstuck(self) -> None:
        if self._stuck_since is not None:
            logger.warning("The journal waits no more")
            self._stuck_since = None
            self._retry_seconds = 0.0

    def _fence(self, owner: str) -> None:
        self.counters.fenced_writes += 1
        self._on_fenced(owner)

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

    async def _append(self, owner: str, items: list[_Item]) -> None:
        async def store(statements: Statements, chunks: Sequence[Any]) -> None:
            await append_chunks(statements, owner, chunks)

        await self._commit(items, store, LiveReply.chunk_committed)

    async def _close(self, owner: str, items: list[_Item]) -> None:
        for closing in {reply.closing for reply, _ in items}:
            await self._commit_closing(
                owner,
                closing or close_replies,
                [item for item in items if item[0].closing is closing],
            )

    async def _commit_closing(
        self, owner: str, closing: Closing, items: list[_Item]
    ) -> None:
        gone: set[str] = set()

        async def store(statements: Statements, closed: Sequence[Any]) -> None:
            stored = await closing(statements, owner, list(closed))
            gone.update({reply.message_id for reply in closed} - stored)

        def closed_or_gone(reply: LiveReply, closed: Any) -> None:
            if reply.message_id in gone:
                logger.error("The row of message %s is gone", reply.message_id)
                reply.drop()
            else:
                reply.close_committed(closed)

        await self._commit(items, store, closed_or_gone)

    async def _commit(
        self,
        items: list[_Item],
        store: _Store,
        stored: _Stored,
    ) -> None:
        """Store rows together or, where the database refuses that, singly."""
        if items and (error := await self._commit_together(items, store, stored)):
            await self._commit_singly(items, store, stored, error)

    async def _commit_together(
        self, items: list[_Item], store: _Store, stored: _Stored
    ) -> StoreError | None:
        """Store rows in one commit; give why the database refuses that."""
        began = monotonic()
        try:
            await store(await self._connected(), [row for _, row in items])
        except (RowError, StoreRefusedError, StoreLockedError) as error:
            return error
        self.counters.commit_seconds.observe(monotonic() - began)
        self.counters.batch_rows.observe(len(items))
        self._health.stored()
        for reply, row in items:
            self._forget(reply)
            stored(reply, row)
        return None

    async def _commit_singly(
        self,
        items: list[_Item],
        store: _Store,
        stored: _Stored,
        error: StoreError,
    ) -> None:
        """Store what can be stored of a batch that was refused.

        Raises:
            StoreError: none could be, and it may be no fault of the rows.
        """
        refused: list[_Item] = []
        is_any_stored = False
        # By itself it cannot tell; what comes from others now is not to wait for it.
        is_again_alone = len(items) == 1 and self._stuck_since is not None
        until = monotonic() + _SINGLY_SECONDS
        was_locked = isinstance(error, StoreLockedError)
        for place, (reply, row) in enumerate(items, 1):
            try:
                if len(items) == 1:
                    raise error
                await store(await self._connected(), [row])
            except RowError as fault:
                await self._cut(reply, fault)
            except (StoreRefusedError, StoreLockedError) as fault:
                refused.append((reply, row))
                error = fault
                enough = len(refused) >= _REFUSED_IN_A_ROW or monotonic() > until
                if enough and not is_any_stored:
                    break
            else:
                self._health.stored()
                self._forget(reply)
                stored(reply, row)
                # The lock may have been the table's and have ended: hundreds of
                # commits, one by one, would take seconds now.
                rest = items[place:] if was_locked and not is_any_stored else []
                is_any_stored = True
                if rest and not await self._commit_together(rest, store, stored):
                    break
        for reply, row in refused:
            del self._unstored[reply.message_id]
            if is_any_stored or is_again_alone:
                self._hold(reply, row, store, stored, error)
            else:  # behind the others, so that each has its turn
                self._unstored[reply.message_id] = (reply, row)
        if refused and not (is_any_stored or is_again_alone):
            raise error

    def _forget(self, reply: LiveReply) -> None:
        """Let a reply's next row come, its present one being stored."""
        self._unstored.pop(reply.message_id, None)
        if self._stuck_since is not None:
            self.mark(reply)

    async def _cut(self, reply: LiveReply, error: RowError) -> None:
        """Give up a reply with a row that cannot be stored; close what is stored."""
        logger.error(
            "Reply %s cannot be stored and is cut: %s", reply.message_id, error
        )
        self._unstored.pop(reply.message_id, None)
        owner = self._owner()
        reply.drop()
        # Else it is closed as an orphan (`chat.recovery`).
        with contextlib.suppress(StoreError):
            connection = await self._connected()
            await connection.execute(
                "close_from_journal",
                process_id=owner,
                message_ids=[reply.message_id],
                finish_reason="crashed",
            )

    def _hold(
        self,
        reply: LiveReply,
        row: _Row,
        store: _Store,
        stored: _Stored,
        error: StoreError,
    ) -> None:
        if not self._held:
            logger.warning("A row of reply %s has to wait: %s", reply.message_id, error)
        self._held[reply.message_id] = monotonic()
        waiting = self._wait_out(reply, row, store, stored)
        task = asyncio.create_task(waiting, name="viva held row")
        self._held_tasks.add(task)
        task.add_done_callback(self._held_tasks.discard)

    async def _wait_out(
        self, reply: LiveReply, row: _Row, store: _Store, stored: _Stored
    ) -> None:
        """Repeat a row by itself until it is stored, or its reply is given up."""
        pause_seconds = _FIRST_RETRY_SECONDS
        owner = self._owner()
        try:
            while not reply.done.is_set():
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_RETRY_SECONDS)
                try:
                    async with self._held_turn:
                        await store(self._database, [row])
                except FencedError:
                    self._fence(owner)
                except RowError as error:
                    await self._cut(reply, error)
                except StoreError:
                    continue
                else:
                    stored(reply, row)
                break
        finally:
            del self._held[reply.message_id]
            self.mark(reply, at_once=True)
