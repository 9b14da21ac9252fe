"""The inbox: webhooks become rows before they are acknowledged, many per commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from viva_server.errors import (
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.health import Health
from viva_server.store.tasks import end_task
from viva_server.whatsapp.delivery import Delivery
from viva_server.whatsapp.entry import Entry
from viva_server.whatsapp.intake import as_fields
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_TRANSIENT_ATTEMPTS = 3

_REFUSED_IN_A_ROW = 8
"""So many single rows refused, and none stored: it is the database, not the rows."""


class KeptError(StoreUnavailableError):
    """The event is not stored yet; it is kept in memory until it is."""


class Statements(Protocol):
    """What the inbox needs of `viva_server.store.db.Database`."""

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        """Run a query of sql/queries by its name."""


class Inbox:
    """Stores deliveries by group commit: one statement takes all that is queued.

    A lone delivery goes at once; while a commit runs, the next batch gathers. The same
    statement stores the messages that `rules` find in them, and when their chats are
    due. `on_stored` gets what each commit stored. The inbox owns one task; the database
    stays its caller's.
    """

    def __init__(
        self,
        database: Statements,
        *,
        max_queued: int = 2000,
        max_queued_bytes: int = 256 * 2**20,
        batch_rows: int = 200,
        batch_bytes: int = 2**20,
        max_kept: int = 1000,
        max_kept_bytes: int = 32 * 2**20,
        retry_seconds: float = 1.0,
        rules: Rules | None = None,
        on_stored: Callable[[Sequence[Delivery]], None] | None = None,
        health: Health | None = None,
    ) -> None:
        self._database = database
        self._health = health or Health()
        self._rules = rules or Rules()
        self._on_stored = on_stored
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._retry_seconds = retry_seconds
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._kept: deque[Entry] = deque()
        self._kept_bytes = 0
        self._arrived = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many deliveries are in memory only."""
        return len(self._queue) + len(self._kept)

    async def add(self, delivery: Delivery) -> bool:
        """Store a delivery and return whether it is new, after the commit.

        A caller that is cancelled or times out cancels its waiting only: the row is
        stored all the same, or, of an event that Evolution waits for, kept.

        Raises:
            KeptError: an event that Evolution waits for is stored later.
            StoreUnavailableError: it is not stored as far as one knows, nor kept;
                deliver it again.
            StoreError: the database refuses it for good.
        """
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.put(delivery, stored)
        return await stored

    def put(
        self,
        delivery: Delivery,
        stored: asyncio.Future[bool],
        *,
        within_seconds: float | None = None,
    ) -> None:
        """Queue a delivery; the future gets what `add` returns or raises.

        After `within_seconds` it gets a TimeoutError, and the row is stored all the
        same.

        Raises:
            KeptError, StoreUnavailableError: at once, the inbox being full or closed.
        """
        entry = Entry(delivery, stored)
        self._check_room(entry)
        self._queue.append(entry)
        self._queued_bytes += delivery.size
        if within_seconds is not None:
            entry.expire_in(within_seconds)
        self._wake()

    async def close(self, within_seconds: float = 2.0) -> None:
        """Take nothing more, store what is queued if the time is enough, then stop.

        Idempotent. A delivery that is still not stored raises StoreUnavailableError at
        its caller. A cancellation ends the time, and is raised when all that is done.
        """
        self._is_closed = True
        self._arrived.set()
        flusher, self._flusher = self._flusher, None
        try:
            if flusher is not None:
                await end_task(flusher, within_seconds)
        finally:
            self._give_up()

    def _check_room(self, entry: Entry) -> None:
        """Raise StoreUnavailableError for a delivery that the queue does not take."""
        if self._is_closed:
            raise StoreUnavailableError("the server stops")
        is_awaited = entry.delivery.is_awaited
        if is_awaited and not self._may_keep(entry.delivery):
            raise StoreUnavailableError("too many events wait for the database")
        if not self._has_room(entry.delivery):
            if is_awaited:
                self._keep(entry)
                self._wake()
                raise KeptError
            raise StoreUnavailableError("the inbox takes no more deliveries")

    def _wake(self) -> None:
        self._arrived.set()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._run(), name="inbox flusher")

    def _give_up(self) -> None:
        for entry in self._queue:
            entry.fail(StoreUnavailableError("the server stops"))
        _tell_of_loss([*self._kept, *self._queue])
        self._queue.clear()
        self._kept.clear()
        self._queued_bytes = self._kept_bytes = 0

    def _has_room(self, delivery: Delivery) -> bool:
        return (
            len(self._queue) < self._max_queued
            and self._queued_bytes + delivery.size <= self._max_queued_bytes
        )

    async def _run(self) -> None:
        while not self._is_closed:
            await self._wait_for_work()
            await self._store_all(self._take())
        # What cannot be stored now is not given back to the queues any more.
        while batch := self._take():
            await self._store_all(batch)

    async def _store_all(self, batch: list[Entry]) -> None:
        """Store a batch; afterwards, or at a cancellation, nobody waits for it."""
        try:
            if batch:
                with self._health.attempt():
                    await self._store(batch)
        except asyncio.CancelledError:
            _tell_of_loss(entry for entry in batch if not entry.is_stored)
            raise
        finally:
            for entry in batch:
                if not entry.stored.done():
                    entry.fail(StoreUnavailableError("the server stops"))

    async def _wait_for_work(self) -> None:
        """Wait for a delivery, where some are kept for `retry_seconds` at most."""
        if not self._queue:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_seconds if self._kept else None):
                    await self._arrived.wait()

    def _take(self) -> list[Entry]:
        """Take what somebody waits for, then kept deliveries, up to one batch."""
        batch: list[Entry] = []
        size = 0
        for queue in (self._queue, self._kept):
            while queue and len(batch) < self._batch_rows:
                size += queue[0].delivery.size
                if batch and size > self._batch_bytes:
                    return batch
                batch.append(self._pop(queue))
        return batch

    def _pop(self, queue: deque[Entry]) -> Entry:
        entry = queue.popleft()
        if queue is self._kept:
            self._kept_bytes -= entry.delivery.size
        else:
            self._queued_bytes -= entry.delivery.size
        return entry

    async def _store(self, batch: list[Entry]) -> None:
        """Store a batch; a bad row fails it, then each goes alone."""
        try:
            await self._insert(batch)
        except (StoreRefusedError, StoreLockedError) as error:
            await self._store_singly(batch, error)
        except (StoreUnavailableError, TransientStoreError) as error:
            self._give_back(batch, error)
        except StoreError as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._store([entry])
            else:
                await self._store_refused(batch[0], error)
        except Exception as error:
            logger.exception("the inbox cannot store a batch of %d", len(batch))
            for entry in batch:
                entry.fail(StoreError(str(error)))

    async def _store_singly(self, batch: list[Entry], error: StoreError) -> None:
        """Store what can be stored of a batch that was refused, give back the rest."""
        refused: list[Entry] = []
        is_any_stored = False
        for number, entry in enumerate(batch if len(batch) > 1 else ()):
            if len(refused) >= _REFUSED_IN_A_ROW and not is_any_stored:
                refused += batch[number:]
                break
            try:
                await self._insert([entry])
                is_any_stored = True
            except (StoreUnavailableError, TransientStoreError) as failure:
                error = failure
                refused.append(entry)
            except StoreError as failure:
                await self._store_refused(entry, failure)
        self._give_back(refused if len(batch) > 1 else batch, error)
        if is_any_stored:
            self._health.stored()

    async def _store_refused(self, entry: Entry, error: StoreError) -> None:
        """Store without its body what the database refuses: the event is not lost."""
        logger.error("the body of a webhook is refused, stored without it: %s", error)
        entry.delivery = entry.delivery.without_body()
        try:
            await self._insert([entry])
        except StoreUnavailableError as failure:
            self._give_back([entry], failure)
        except StoreError as failure:
            entry.fail(failure)

    def _give_back(self, batch: list[Entry], error: StoreError) -> None:
        """Send the deliveries back to Evolution, but for those that it waits for."""
        if batch:
            self._health.failed(min(entry.since for entry in batch), error)
        lost: list[Entry] = []
        for entry in batch:
            if entry.delivery.is_awaited and not self._is_closed:
                self._keep(entry)
                entry.fail(KeptError(str(error), outcome_unknown=True))
            elif entry.is_kept or entry.is_promised:
                lost.append(entry)
            else:
                entry.fail(StoreUnavailableError(str(error), outcome_unknown=True))
        _tell_of_loss(lost)

    def _may_keep(self, delivery: Delivery) -> bool:
        room = self._max_kept_bytes - self._kept_bytes
        return len(self._kept) < self._max_kept and delivery.size <= room

    def _keep(self, entry: Entry) -> None:
        """Keep an event; beyond the limit only what was queued when there was room."""
        entry.is_kept = True
        self._kept.append(entry)
        self._kept_bytes += entry.delivery.size

    async def _insert(self, batch: list[Entry]) -> None:
        """Store the first of each key, count the others, tell all who wait."""
        firsts: dict[str, Entry] = {}
        counts: dict[str, int] = {}
        for entry in batch:
            key = entry.delivery.dedupe_key
            firsts.setdefault(key, entry)
            counts[key] = counts.get(key, 0) + 1
        rows = await self._fetch(list(firsts.values()), list(counts.values()))
        stored = {row.dedupe_key: row.id for row in rows}
        self._health.stored()
        if self._on_stored is not None:
            self._on_stored([entry.delivery for entry in firsts.values()])
        for entry in batch:
            delivery = entry.delivery
            is_new = stored.get(delivery.dedupe_key) == delivery.id
            entry.answer(is_new=is_new)

    async def _fetch(self, entries: list[Entry], counts: list[int]) -> Sequence[Any]:
        now, clock = time.monotonic(), time.time()
        rows = [
            as_fields(entry.delivery, now - entry.since, n, self._rules, clock)
            for entry, n in zip(entries, counts, strict=True)
        ]
        deliveries = msgspec.json.encode(rows).decode()
        for attempt in range(1, _TRANSIENT_ATTEMPTS):
            with contextlib.suppress(TransientStoreError):
                return await self._add(deliveries)
            await asyncio.sleep(0.01 * attempt)
        return await self._add(deliveries)

    async def _add(self, deliveries: str) -> Sequence[Any]:
        return await self._database.fetch(
            "add_webhooks",
            deliveries=deliveries,
            debounce_seconds=self._rules.debounce_seconds,
        )


def _tell_of_loss(entries: Iterable[Entry]) -> None:
    """Log the events that Evolution was told are taken care of, and that are not."""
    lost = [entry for entry in entries if entry.is_kept or entry.is_promised]
    if lost:
        names = ", ".join(sorted({entry.delivery.form["event"] for entry in lost}))
        logger.error("%d kept webhook events are lost: %s", len(lost), names)
