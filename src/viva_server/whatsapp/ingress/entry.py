"""A delivery on its way to the inbox, and who waits for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from viva_server.errors import StoreError
from viva_server.whatsapp.ingress.delivery import Delivery


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
