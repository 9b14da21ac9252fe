"""From the body of a webhook to its committed row, many rows in one commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from viva_server.errors import (
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnavailableError,
    TransientStoreError,
    VivaError,
)
from viva_server.store.driver.tasks import end_task
from viva_server.store.health import Health
from viva_server.whatsapp import rules
from viva_server.whatsapp.events.addresses import LID
from viva_server.whatsapp.events.json_values import is_heavy
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.ingress.delivery import (
    Delivery,
    WebhookRequest,
    read_delivery,
)
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_STORED_BYTES_PER_SECOND = 4 * 2**20
# What is read before the event loop turns to others; a body counts whole.
_BYTES_AT_ONCE = 64 * 2**10
_TRANSIENT_ATTEMPTS = 3

_REFUSED_IN_A_ROW = 8
"""So many single rows refused, and none stored: it is the database, not the rows."""

_CHANGES = frozenset({"status", "edit", "delete"})
_CLOCK_SKEW_SECONDS = 600.0


class Accepted(NamedTuple):
    """What became of a delivery; `kept`: it is in memory until it is stored."""

    event: str
    outcome: Literal["stored", "duplicate", "kept"]


class NotStoredError(VivaError):
    """The delivery is not stored as far as one knows: send it again."""

    def __init__(self, event: str) -> None:
        super().__init__(f"a delivery of {event} is not stored")
        self.event = event


class DeferredError(StoreUnavailableError):
    """The event is not stored yet; it is kept in memory until it is."""


@dataclass(slots=True, eq=False)
class _Body:
    """A body on its way, and the future that its caller awaits: whether it is new."""

    raw: bytes | bytearray
    request: WebhookRequest
    stored: asyncio.Future[bool]
    delivery: Delivery | None = None


class Receiver:
    """Reads bodies and puts them into the inbox; both stay their owners'.

    Light bodies are read on the event loop, all that came in one turn of it side by
    side: that takes a tenth less of the server's CPU than each between the work of its
    own request (docs/performance.md).

    Args:
        inbox: where deliveries are stored.
        heavy_bodies: who reads heavy bodies.
        answer_seconds: how long a caller waits for the commit. A large body has longer.
        awaited_seconds: the same for events that hold up Evolution's queue, which are
            deferred then.
    """

    def __init__(
        self,
        inbox: Inbox,
        heavy_bodies: HeavyBodies,
        *,
        answer_seconds: float = 2.0,
        awaited_seconds: float = 0.5,
    ) -> None:
        self._inbox = inbox
        self._heavy_bodies = heavy_bodies
        self._answer_seconds = answer_seconds
        self._awaited_seconds = awaited_seconds
        self._light: deque[_Body] = deque()

    async def receive(
        self, raw: bytes | bytearray, request: WebhookRequest
    ) -> Accepted:
        """Store a body; return after its commit, or when it is deferred.

        A caller that is cancelled leaves a light body to be stored, a heavy one from
        the end of its reading on.

        Raises:
            NotStoredError: the database does not take it now, or not in time.
            WrongSecretError, NotJsonObjectError: it is none that is stored.
            TooCostlyError, OverloadedError, HeavyBodyError: see `HeavyBodies.read`.
        """
        loop = asyncio.get_running_loop()
        body = _Body(raw, request, loop.create_future())
        if is_heavy(raw):
            self._put(body, await self._heavy_bodies.read(raw, request))
        else:
            if not self._light:
                loop.call_soon(self._read_light)
            self._light.append(body)
        try:
            is_new = await body.stored
        except (StoreError, TimeoutError) as error:
            assert body.delivery is not None, "it was put into the inbox"
            event, is_awaited = body.delivery.form["event"], body.delivery.is_awaited
            # Evolution's queue stands still for this answer. After a time-out the
            # inbox stores it, or keeps it, though nobody waits any more.
            is_late = isinstance(error, TimeoutError) and is_awaited
            if is_late or isinstance(error, DeferredError):
                return Accepted(event, "kept")
            raise NotStoredError(event) from error
        assert body.delivery is not None, "what is stored has been read"
        return Accepted(
            body.delivery.form["event"], "stored" if is_new else "duplicate"
        )

    def _read_light(self) -> None:
        left = _BYTES_AT_ONCE
        while self._light and left > 0:
            body = self._light.popleft()
            left -= len(body.raw)
            try:
                delivery = read_delivery(body.raw, body.request)
            except Exception as error:
                _fail(body.stored, error)
            else:
                self._put(body, delivery)
        if self._light:
            asyncio.get_running_loop().call_soon(self._read_light)

    def _put(self, body: _Body, delivery: Delivery) -> None:
        body.delivery = delivery
        seconds = self._awaited_seconds
        if not delivery.is_awaited:
            seconds = self._answer_seconds + delivery.size / _STORED_BYTES_PER_SECOND
        try:
            self._inbox.put(delivery, body.stored, within_seconds=seconds)
        except StoreError as error:
            _fail(body.stored, error)


@dataclass(slots=True, eq=False)
class QueuedDelivery:
    """A delivery, and the future that its caller awaits: whether it is new."""

    delivery: Delivery
    stored: asyncio.Future[bool]
    since: float = field(default_factory=time.monotonic)
    is_deferred: bool = False
    is_late: bool = False
    is_stored: bool = False
    _timer: asyncio.TimerHandle | None = None

    @property
    def is_promised(self) -> bool:
        """Whether Evolution was told that this event is taken care of."""
        has_left = self.is_late or self.stored.cancelled()
        return self.is_deferred or (has_left and self.delivery.is_awaited)

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
        _fail(self.stored, error)

    def _expire(self) -> None:
        self.is_late = not self.stored.done()
        _fail(self.stored, TimeoutError())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _fail(future: asyncio.Future[bool], error: Exception) -> None:
    """Set a future's exception, which no caller need be there to read."""
    if not future.done():
        future.set_exception(error)
        # A caller that went away never reads it; that is no fault.
        future.exception()


class _Queue(deque[QueuedDelivery]):
    """Deliveries in memory, up to a number and a size that `has_room` tells."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__()
        self._most = most
        self._free_bytes = self._most_bytes = most_bytes

    def has_room(self, delivery: Delivery) -> bool:
        return len(self) < self._most and delivery.size <= self._free_bytes

    def put(self, entry: QueuedDelivery) -> None:
        self.append(entry)
        self._free_bytes -= entry.delivery.size

    def take(self) -> QueuedDelivery:
        entry = self.popleft()
        self._free_bytes += entry.delivery.size
        return entry

    def clear(self) -> None:
        super().clear()
        self._free_bytes = self._most_bytes


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
        max_deferred: int = 1000,
        max_deferred_bytes: int = 32 * 2**20,
        retry_seconds: float = 1.0,
        rules: Rules | None = None,
        on_stored: Callable[[Sequence[Delivery]], None] | None = None,
        health: Health | None = None,
    ) -> None:
        self._database = database
        self._health = health or Health()
        self._rules = rules or Rules()
        self._ageless = replace(self._rules, max_age_seconds=math.inf)
        self._on_stored = on_stored
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._retry_seconds = retry_seconds
        self._queue = _Queue(max_queued, max_queued_bytes)
        self._deferred = _Queue(max_deferred, max_deferred_bytes)
        self._arrived = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many deliveries are in memory only."""
        return len(self._queue) + len(self._deferred)

    async def add(self, delivery: Delivery) -> bool:
        """Store a delivery and return whether it is new, after the commit.

        A caller that is cancelled or times out cancels its waiting only: the row is
        stored all the same, or, of an event that Evolution waits for, deferred.

        Raises:
            DeferredError: an event that Evolution waits for is stored later.
            StoreUnavailableError: it is not stored as far as one knows, nor deferred;
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
            DeferredError, StoreUnavailableError: at once, the inbox being full or
                closed.
        """
        if self._is_closed:
            raise StoreUnavailableError("the server stops")
        if delivery.is_awaited and not self._deferred.has_room(delivery):
            raise StoreUnavailableError("too many events wait for the database")
        entry = QueuedDelivery(delivery, stored)
        has_room = self._queue.has_room(delivery)
        if has_room:
            self._queue.put(entry)
        elif delivery.is_awaited:
            self._defer(entry)
        else:
            raise StoreUnavailableError("the inbox takes no more deliveries")
        self._arrived.set()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._run(), name="inbox flusher")
        if not has_room:
            raise DeferredError
        if within_seconds is not None:
            entry.expire_in(within_seconds)

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
            for entry in self._queue:
                entry.fail(StoreUnavailableError("the server stops"))
            _log_loss([*self._deferred, *self._queue])
            self._queue.clear()
            self._deferred.clear()

    async def _run(self) -> None:
        while not self._is_closed:
            await self._wait_for_work()
            await self._store_all(self._take())
        # What cannot be stored now is not given back to the queues any more.
        while batch := self._take():
            await self._store_all(batch)

    async def _wait_for_work(self) -> None:
        """Wait for a delivery, where some are deferred for `retry_seconds` at most."""
        if not self._queue:
            self._arrived.clear()
            seconds = self._retry_seconds if self._deferred else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()

    def _take(self) -> list[QueuedDelivery]:
        """Take what somebody waits for, then deferred deliveries, up to one batch."""
        batch: list[QueuedDelivery] = []
        size = 0
        for queue in (self._queue, self._deferred):
            while queue and len(batch) < self._batch_rows:
                size += queue[0].delivery.size
                if batch and size > self._batch_bytes:
                    return batch
                batch.append(queue.take())
        return batch

    async def _store_all(self, batch: list[QueuedDelivery]) -> None:
        """Store a batch; afterwards, or at a cancellation, nobody waits for it."""
        try:
            if batch:
                await self._store(batch)
        except asyncio.CancelledError:
            _log_loss(entry for entry in batch if not entry.is_stored)
            raise
        finally:
            for entry in batch:
                if not entry.stored.done():
                    entry.fail(StoreUnavailableError("the server stops"))

    async def _store(self, batch: list[QueuedDelivery]) -> None:
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

    async def _store_singly(
        self, batch: list[QueuedDelivery], error: StoreError
    ) -> None:
        """Store what can be stored of a batch that was refused, give back the rest."""
        refused: list[QueuedDelivery] = []
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

    async def _store_refused(self, entry: QueuedDelivery, error: StoreError) -> None:
        """Store without its body what the database refuses: the event is not lost."""
        logger.error("the body of a webhook is refused, stored without it: %s", error)
        entry.delivery = entry.delivery.without_body()
        try:
            await self._insert([entry])
        except StoreUnavailableError as failure:
            self._give_back([entry], failure)
        except StoreError as failure:
            entry.fail(failure)

    def _give_back(self, batch: list[QueuedDelivery], error: StoreError) -> None:
        """Send the deliveries back to Evolution, but for those that it waits for."""
        if batch:
            self._health.failed(min(entry.since for entry in batch), error)
        lost: list[QueuedDelivery] = []
        for entry in batch:
            if entry.delivery.is_awaited and not self._is_closed:
                self._defer(entry)
                entry.fail(DeferredError(str(error), outcome_unknown=True))
            elif entry.is_promised:
                lost.append(entry)
            else:
                entry.fail(StoreUnavailableError(str(error), outcome_unknown=True))
        _log_loss(lost)

    def _defer(self, entry: QueuedDelivery) -> None:
        """Keep an event; beyond the limit only what was queued when there was room."""
        entry.is_deferred = True
        self._deferred.put(entry)

    async def _insert(self, batch: list[QueuedDelivery]) -> None:
        """Store the first of each key, count the others, tell all who wait."""
        firsts: dict[str, QueuedDelivery] = {}
        counts: dict[str, int] = {}
        for entry in batch:
            key = entry.delivery.dedupe_key
            firsts.setdefault(key, entry)
            counts[key] = counts.get(key, 0) + 1
        rows = await self._add_webhooks(list(firsts.values()), list(counts.values()))
        stored = {row.dedupe_key: row.id for row in rows}
        self._health.stored()
        if self._on_stored is not None:
            self._on_stored([entry.delivery for entry in firsts.values()])
        for entry in batch:
            delivery = entry.delivery
            is_new = stored.get(delivery.dedupe_key) == delivery.id
            entry.answer(is_new=is_new)

    async def _add_webhooks(
        self, entries: list[QueuedDelivery], counts: list[int]
    ) -> Sequence[Any]:
        now, clock = time.monotonic(), time.time()
        # With clocks that differ the turn judges the age, and puts nothing away unseen.
        judge = self._rules if self._health.clocks_agree else self._ageless
        rows = [
            _fields(entry.delivery, now - entry.since, n, judge, clock)
            for entry, n in zip(entries, counts, strict=True)
        ]
        parameters: dict[str, object] = {
            "deliveries": msgspec.json.encode(rows).decode(),
            "debounce_seconds": self._rules.debounce_seconds,
        }
        for attempt in range(1, _TRANSIENT_ATTEMPTS):
            with contextlib.suppress(TransientStoreError):
                return await self._database.fetch("add_webhooks", **parameters)
            await asyncio.sleep(0.01 * attempt)
        return await self._database.fetch("add_webhooks", **parameters)


def _log_loss(entries: Iterable[QueuedDelivery]) -> None:
    """Log the events that Evolution was told are taken care of, and that are not."""
    lost = [entry for entry in entries if entry.is_promised]
    if lost:
        names = ", ".join(sorted({entry.delivery.form["event"] for entry in lost}))
        logger.error("%d deferred webhook events are lost: %s", len(lost), names)


def _fields(
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


def is_pending(delivery: Delivery) -> bool:
    """Whether a delivery has to be applied to what is stored."""
    return delivery.trusted and any(
        form["kind"] in _CHANGES or rules.is_own(form)
        for form in rules.forms_of(delivery.form)
    )


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


def message_rows(delivery: Delivery, judge: Rules, now: float) -> list[MessageRow]:
    """Give the rows of people's messages; none of what nobody vouches for."""
    if not delivery.trusted:
        return []
    forms = rules.forms_of(delivery.form)
    rows = [_row(form, judge, now) for form in forms if rules.is_kept(form)]
    if not delivery.form.get("instance"):
        return [row._replace(why_not=row.why_not or "no_instance") for row in rows]
    return rows


def _row(form: NormalForm, judge: Rules, now: float) -> MessageRow:
    why_not = judge.why_not(form, now)
    is_lid = form.get("group") or form["chat"].endswith(LID)
    return MessageRow(
        message_id=form["message_id"],
        jid=form["chat"],
        lid=None if is_lid else form.get("lid"),
        kind=form["kind"],
        # What is not answered is not kept twice.
        text=rules.text_for_model(form) if why_not is None else None,
        sent_at=_sent_at(form, now),
        why_not=why_not,
    )


def _sent_at(form: NormalForm, now: float) -> float | None:
    """Give the time of a message, unless no clock could have shown it."""
    sent_at = form.get("timestamp")
    if sent_at is None or not 0 < sent_at < now + _CLOCK_SKEW_SECONDS:
        return None
    return float(sent_at)
