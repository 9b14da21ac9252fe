"""From the body of a webhook to its row, whoever waits for the answer."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from viva_server.errors import StoreError, VivaError
from viva_server.whatsapp.events.json_values import is_heavy
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.ingress.entry import fail
from viva_server.whatsapp.ingress.heavy_bodies import Unpackers
from viva_server.whatsapp.ingress.inbox import Inbox, KeptError
from viva_server.whatsapp.ingress.unpacking import Post, unpack

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
