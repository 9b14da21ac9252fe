"""Tasks that a cancelled caller does not cancel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from viva_server.errors import StoreUnavailableError

_logger = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Tasks:
    """The running tasks of one owner, held so that none is lost."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    def start(self, work: Coroutine[Any, Any, _Value]) -> asyncio.Task[_Value]:
        """Start a task that goes on when nobody waits for it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def shield(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Wait for a task of its own; cancelling the caller leaves it running.

        Raises:
            StoreUnavailableError: `end_all` cancelled the task.
        """
        task = self.start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                caller = asyncio.current_task()
                if caller is not None and not caller.cancelling():
                    raise StoreUnavailableError(outcome_unknown=True) from None
            task.add_done_callback(self._log_failure)
            raise

    def expect_end(self) -> None:
        """From here on a failure that nobody waits for is part of a stop."""
        self._is_closing = True

    async def end_all(self, within_seconds: float) -> None:
        """Wait for what is running, cancel what takes longer, wait for its end."""
        if not (tasks := list(self._running)):
            return
        _, late = await asyncio.wait(tasks, timeout=within_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        # Looked at in every case, else asyncio tells of it.
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._is_closing:
            _logger.warning("a statement failed after its caller had left: %s", error)


async def end_task(task: asyncio.Task[Any], within_seconds: float = 0.0) -> None:
    """Wait for a task, cancel it when the time is over, and wait for its end.

    A cancellation of the caller cancels the task at once, and is raised when it ended.

    Raises:
        Exception: what the task raised, but for its cancellation.
    """
    cancelled: asyncio.CancelledError | None = None
    try:
        await asyncio.wait({task}, timeout=within_seconds)
    except asyncio.CancelledError as error:
        cancelled = error
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()
