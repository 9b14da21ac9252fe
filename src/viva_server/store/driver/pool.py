"""A bounded pool of links.

aiopg's own pool connects while it holds its lock, wakes nobody when a closed
connection comes back, and lets any number wait for 60 s; each of its methods would
have to be replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

from viva_server.counters import Buckets
from viva_server.errors import PoolFullError, StoreUnavailableError
from viva_server.store.driver.link import Link

# More than these wait only when the database is far behind; they get 503 at once.
_WAITERS_PER_LINK = 100


class PoolUsage(NamedTuple):
    """How much a pool is used.

    `wait_seconds` counts only callers that had to wait and got a link, `refused`
    those that got none in time.
    """

    busy: int
    idle: int
    waiting: int
    refused: int
    wait_seconds: Buckets


class Pool:
    """At most `size` links, made when they are needed and kept open.

    A slot stands for a link that is out, whether it is open, lost or being made: so
    one that comes back broken makes room like any other.
    """

    def __init__(
        self,
        make_link: Callable[[], Awaitable[Link]],
        *,
        size: int,
        acquire_seconds: float,
    ) -> None:
        self._make_link = make_link
        self._size = size
        self._acquire_seconds = acquire_seconds
        self._slots = asyncio.Semaphore(size)
        self._waiting = 0
        self._refused = 0
        self._wait_seconds = Buckets()
        self._resting: list[Link] = []
        self._out: set[Link] = set()
        self._closing = False

    @property
    def usage(self) -> PoolUsage:
        """How much the pool is used now, and what has been counted."""
        return PoolUsage(
            busy=len(self._out),
            idle=len(self._resting),
            waiting=self._waiting,
            refused=self._refused,
            wait_seconds=self._wait_seconds,
        )

    async def acquire(self) -> Link:
        """Return a link that is open; the caller gives it back with `release`.

        Raises:
            StoreUnavailableError: none is free within `acquire_seconds`, too many
                wait, the database cannot be reached, or the pool is closed.
        """
        await self._take_slot()
        try:
            self._refuse_when_closed()
            link = self._take_resting() or await self._make_link()
            if self._closing:
                link.close()
            self._refuse_when_closed()
        except BaseException:
            self._slots.release()
            raise
        self._out.add(link)
        return link

    def release(self, link: Link) -> None:
        """Take a link back; one that is lost or in a transaction is closed."""
        self._out.remove(link)
        if link.at_rest and not self._closing:
            self._resting.append(link)
        else:
            link.close()
        self._slots.release()

    async def close(self, within_seconds: float) -> None:
        """Refuse new callers, wait for the links that are out, close all.

        What is still out after `within_seconds` is closed in mid-statement.
        """
        if self._closing:
            return
        self._closing = True
        try:
            async with asyncio.timeout(within_seconds):
                for _ in range(self._size):
                    await self._slots.acquire()
        except TimeoutError:
            pass
        for link in (*self._resting, *self._out):
            link.close()
        self._resting.clear()

    async def _take_slot(self) -> None:
        self._refuse_when_closed()
        if not self._slots.locked():
            await self._slots.acquire()
            return
        if self._waiting >= self._size * _WAITERS_PER_LINK:
            self._refused += 1
            raise PoolFullError("too many wait for a database connection")
        self._waiting += 1
        began = monotonic()
        try:
            async with asyncio.timeout(self._acquire_seconds):
                await self._slots.acquire()
            self._wait_seconds.observe(monotonic() - began)
        except TimeoutError:
            self._refused += 1
            raise PoolFullError("no database connection is free") from None
        finally:
            self._waiting -= 1

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise StoreUnavailableError("the database is closed")

    def _take_resting(self) -> Link | None:
        while self._resting:
            if (link := self._resting.pop()).still_open():
                return link
        return None
