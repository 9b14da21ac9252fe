"""From the body of a webhook to its committed row, many rows in one commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from viva_server.errors import (
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
    VivaError,
)
from viva_server.store.tasks import end_task
from viva_server.whatsapp import rules
from viva_server.whatsapp.events.addresses import LID
from viva_server.whatsapp.events.json_values import is_heavy
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.ingress.delivery import Delivery, Post, unpack
from viva_server.whatsapp.ingress.heavy_bodies import Unpackers
from viva_server.whatsapp.rules import Rules

_STORED_BYTES_PER_SECOND = 4 * 2**20
# What is unpacked before the event loop turns to others; a body counts whole.
_BYTES_AT_ONCE = 64 * 2**10


class Receipt(NamedTuple):
    """What became of a delivery; `kept`: it is in memory until it is stored."""

    event: str
    outcome: Literal["stored", "duplicate", "kept"]


class NotStoredError(VivaError):
    """The delivery is not stored as far as one knows: send it again."""

    def __init__(self, event: str) -> None:
        super().__init__(f"a delivery of {event} is not stored")
        self.event = event


@dataclass(slots=True, eq=False)
class _Reading:
    """A body on its way, and the future that its caller awaits: whether it is new."""

    raw: bytes | bytearray
    post: Post
    stored: asyncio.Future[bool]
    delivery: Delivery | None = None


class Reception:
    """Unpacks bodies and puts them into the inbox, both of which stay their owners'.

    Light bodies are unpacked on the event loop, all that came in one turn of it side
    by side: that takes a tenth less of the server's CPU than each between the work
    of its own request (docs/performance.md).

    Args:
        inbox: where deliveries are stored.
        unpackers: who unpacks heavy bodies.
        answer_seconds: how long a caller waits for the commit. A large body has longer.
        awaited_seconds: the same for events that hold up Evolution's queue, which are
            kept then.
    """

    def __init__(
        self,
        inbox: Inbox,
        unpackers: Unpackers,
        *,
        answer_seconds: float = 2.0,
        awaited_seconds: float = 0.5,
    ) -> None:
        self._inbox = inbox
        self._unpackers = unpackers
        self._answer_seconds = answer_seconds
        self._awaited_seconds = awaited_seconds
        self._light: deque[_Reading] = deque()

    async def receive(self, raw: bytes | bytearray, post: Post) -> Receipt:
        """Store a body; return after its commit, or when it is kept.

        A caller that is cancelled leaves a light body to be stored, a heavy one from
        the end of its unpacking on.

        Raises:
            NotStoredError: the database does not take it now, or not in time.
            WrongSecretError, NotJsonObjectError: it is none that is stored.
            TooCostlyError, OverloadedError, UnpackError: see `Unpackers.unpack`.
        """
        reading = _Reading(raw, post, asyncio.get_running_loop().create_future())
        if is_heavy(raw):
            self._put(reading, await self._unpackers.unpack(raw, post))
        else:
            self._read_soon(reading)
        return await self._receipt(reading)

    def _read_soon(self, reading: _Reading) -> None:
        if not self._light:
            asyncio.get_running_loop().call_soon(self._read)
        self._light.append(reading)

    def _read(self) -> None:
        left = _BYTES_AT_ONCE
        while self._light and left > 0:
            reading = self._light.popleft()
            left -= len(reading.raw)
            try:
                delivery = unpack(reading.raw, reading.post)
            except Exception as error:
                fail(reading.stored, error)
            else:
                self._put(reading, delivery)
        if self._light:
            asyncio.get_running_loop().call_soon(self._read)

    def _put(self, reading: _Reading, delivery: Delivery) -> None:
        reading.delivery = delivery
        seconds = self._awaited_seconds
        if not delivery.is_awaited:
            seconds = self._answer_seconds + delivery.size / _STORED_BYTES_PER_SECOND
        try:
            self._inbox.put(delivery, reading.stored, within_seconds=seconds)
        except StoreError as error:
            fail(reading.stored, error)

    async def _receipt(self, reading: _Reading) -> Receipt:
        try:
            is_new = await reading.stored
        except KeptError:
            # Evolution's queue stands still for this answer.
            return Receipt(_event(reading), "kept")
        except TimeoutError as error:
            # The inbox stores it, or keeps it, though nobody waits any more.
            if reading.delivery is not None and reading.delivery.is_awaited:
                return Receipt(_event(reading), "kept")
            raise NotStoredError(_event(reading)) from error
        except StoreError as error:
            raise NotStoredError(_event(reading)) from error
        return Receipt(_event(reading), "stored" if is_new else "duplicate")


def _event(reading: _Reading) -> str:
    assert reading.delivery is not None, "what is stored has been unpacked"
    return reading.delivery.form["event"]


logger = logging.getLogger(__name__)

_TRANSIENT_ATTEMPTS = 3


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
    ) -> None:
        self._database = database
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


@dataclass(slots=True, eq=False)
class Entry:
    """A delivery, and the future that its caller awaits: whether it is new."""

    delivery: Delivery
    stored: asyncio.Future[bool]
    since: float = field(default_factory=time.monotonic)
    is_kept: bool = False
    is_late: bool = False
    is_stored: bool = False
    _timer: asyncio.TimerHandle | None = None

    @property
    def is_promised(self) -> bool:
        """Whether Evolution, which waited for it, was told that it is taken care of."""
        has_left = self.is_late or self.stored.cancelled()
        return has_left and self.delivery.is_awaited

    def expire_in(self, seconds: float) -> None:
        """Let the caller wait no longer; asyncio.timeout costs three times as much."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._expire)

    def answer(self, *, is_new: bool) -> None:
        """Tell the caller that the row is there, unless nobody waits any more."""
        self.is_stored = True
        self._stop_timer()
        if not self.stored.done():
            self.stored.set_result(is_new)

    def fail(self, error: StoreError) -> None:
        """Tell the caller of a failure, unless nobody waits any more."""
        self._stop_timer()
        fail(self.stored, error)

    def _expire(self) -> None:
        self.is_late = not self.stored.done()
        fail(self.stored, TimeoutError())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def fail(future: asyncio.Future[bool], error: Exception) -> None:
    """Set a future's exception, which no caller need be there to read."""
    if not future.done():
        future.set_exception(error)
        # A caller that went away never reads it; that is no fault.
        future.exception()


_CHANGES = frozenset({"status", "edit", "delete"})
_CLOCK_SKEW_SECONDS = 600.0


class MessageRow(NamedTuple):
    """A message of a person, in the order of the query add_webhooks.

    `lid` is the other name of the chat that `jid` names by its phone. `sent_at` is
    epoch seconds, None where the delivery does not tell it.
    """

    message_id: str
    jid: str
    lid: str | None
    kind: str
    text: str | None
    sent_at: float | None
    why_not: str | None


def forms_of(form: NormalForm) -> list[NormalForm]:
    """Give the single messages or receipts of a delivery."""
    return form.get("items") or [form]


def message_rows(delivery: Delivery, judge: Rules, now: float) -> list[MessageRow]:
    """Give the rows of people's messages; none of what nobody vouches for."""
    if not delivery.trusted:
        return []
    forms = forms_of(delivery.form)
    rows = [_row(form, judge, now) for form in forms if rules.is_kept(form)]
    if not delivery.form.get("instance"):
        return [row._replace(why_not=row.why_not or "no_instance") for row in rows]
    return rows


def is_pending(delivery: Delivery) -> bool:
    """Whether a delivery has to be applied to what is stored."""
    return delivery.trusted and any(
        form["kind"] in _CHANGES or rules.is_own(form)
        for form in forms_of(delivery.form)
    )


def as_fields(
    delivery: Delivery, age_seconds: float, times: int, judge: Rules, now: float
) -> tuple[Any, ...]:
    """Give the fields of a row in the order of the query add_webhooks.

    As one JSON text: psycopg2 quotes each element of an array by itself, which takes
    many times as long. An age, not a time: the clock of the database is the only one
    that counts. `times` is how often the delivery came in this batch.
    """
    form = delivery.form
    return (
        delivery.id,
        delivery.dedupe_key,
        form.get("instance", ""),
        form["event"],
        not form.get("unknown_event", False),
        form["kind"],
        form["answer"],
        delivery.trusted,
        form.get("chat"),
        form.get("message_id"),
        delivery.tail,
        msgspec.Raw(delivery.headers_json.encode()),
        msgspec.Raw(delivery.form_json.encode()),
        msgspec.Raw(delivery.body_json.encode()),
        age_seconds,
        times,
        is_pending(delivery),
        message_rows(delivery, judge, now),
    )


def _row(form: NormalForm, judge: Rules, now: float) -> MessageRow:
    why_not = judge.why_not(form, now)
    return MessageRow(
        message_id=form["message_id"],
        jid=form["chat"],
        lid=_lid(form),
        kind=form["kind"],
        # What is not answered is not kept twice.
        text=rules.text_for_model(form) if why_not is None else None,
        sent_at=_sent_at(form, now),
        why_not=why_not,
    )


def _lid(form: NormalForm) -> str | None:
    if form.get("group") or form.get("chat", "").endswith(LID):
        return None
    return form.get("lid")


def _sent_at(form: NormalForm, now: float) -> float | None:
    """Give the time of a message, unless no clock could have shown it."""
    sent_at = form.get("timestamp")
    if sent_at is None or not 0 < sent_at < now + _CLOCK_SKEW_SECONDS:
        return None
    return float(sent_at)
