"""The machinery below the use cases, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic

from viva_server.chat.journal import Journal
from viva_server.chat.ownership import Ownership
from viva_server.chat.presence import AWAY_SECONDS, Presence, RemoteReplies
from viva_server.chat.recovery import Recovery
from viva_server.chat.reply import Closing, LiveReply
from viva_server.config import Config
from viva_server.counters import ReplyCounters
from viva_server.store.driver.database import Database
from viva_server.store.health import Health, Probe

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_REPLIES_SHARE = 0.8
"""Of the shutdown's time, to store the ends of replies …"""
_READERS_SHARE = 0.9
"""… and until the last events are read; the rest is for the process's own end."""


class Runtime:
    """The journal, the heartbeat, the readers and the recovery of one process.

    Does not own the database: open it before `start`, close it after `stop`.
    """

    def __init__(self, config: Config, database: Database) -> None:
        self.database = database
        self.is_stopping = False
        self._hurries = False
        self.counters = ReplyCounters()
        self._config = config
        self.ownership = Ownership(
            database, self._give_up, readers=lambda: self.presence.readers
        )
        self.health = Health()
        self.probe = Probe(database, self.health)
        self.journal = Journal(
            database,
            tick_seconds=config.journal_tick_seconds,
            owner=lambda: self.ownership.id,
            on_fenced=self.ownership.fenced,
            health=self.health,
        )
        self.remote = RemoteReplies(
            database,
            process_id=lambda: self.ownership.id,
            away_seconds=AWAY_SECONDS,
        )
        self.presence = Presence(
            database,
            owner=lambda: self.ownership.id,
            remote=self.remote,
            grace_seconds=config.disconnect_grace_seconds,
            away_seconds=self.journal.held_seconds,
        )
        self.recovery = Recovery(database, self.ownership, self.presence.local)

    async def start(self) -> None:
        """Register this process and begin.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        await self.ownership.start()
        await self.journal.start()
        self.probe.start()
        self.remote.start()
        self.presence.start()
        self.recovery.start()

    def adopt(
        self, message_id: str, seq: int, closing: Closing | None = None
    ) -> LiveReply:
        """Make the live reply of a row that this process owns."""
        reply = LiveReply(
            message_id,
            seq=seq,
            journal=self.journal,
            max_chars=self._config.max_reply_chars,
            on_done=self._forget,
            closing=closing,
        )
        self.presence.local[message_id] = reply
        return reply

    async def drain(self) -> None:
        """Take no new work, let live replies finish, then end and store the rest.

        Takes at most `drain_seconds` and `shutdown_seconds`; what the database does
        not take until then is closed by another process, as `crashed`. A client that
        does not read its last event by then is cut: it must not hold up the end.
        """
        self.is_stopping = True
        await self._wait_for_replies(self._config.drain_seconds, or_hurry=True)
        for reply in list(self.presence.local.values()):
            reply.end("shutdown")
        seconds = self._config.shutdown_seconds
        until = asyncio.get_running_loop().time() + seconds * _READERS_SHARE
        await self._wait_for_replies(seconds * _REPLIES_SHARE)
        if self.presence.local:
            logger.error("%d replies could not be closed", len(self.presence.local))
        await self.remote.stop()
        await self._wait_for_readers(until - asyncio.get_running_loop().time())
        self.presence.abort_readers()

    def hurry(self) -> None:
        """Give live replies no more time to finish by themselves."""
        self._hurries = True

    async def stop(self) -> None:
        """End all tasks and leave the list of processes. Call `drain` before.

        A cancellation cuts short what waits, and is raised when all of that is done.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.ownership.stop)
            stack.push_async_callback(self.journal.stop)
            stack.push_async_callback(self.presence.stop)
            stack.push_async_callback(self.recovery.stop)
            stack.push_async_callback(self.probe.stop)

    def _forget(self, reply: LiveReply) -> None:
        if reply.ending is not None:
            self.counters.ended[reply.ending.finish_reason] += 1
            self.counters.count_usage(reply.usage)
        if reply.length:
            # A short reply has its first text with its end.
            at = monotonic() if reply.first_text_at is None else reply.first_text_at
            self.counters.first_text_seconds.observe(at - reply.started_at)
        self.presence.local.pop(reply.message_id, None)

    def _give_up(self) -> None:
        """Drop everything owned under an id that has been declared dead."""
        for reply in list(self.presence.local.values()):
            reply.drop()

    async def _wait_for_replies(
        self, seconds: float, *, or_hurry: bool = False
    ) -> None:
        """Wait until no reply is live, for a limited time."""
        await _until(
            lambda: not self.presence.local or (or_hurry and self._hurries), seconds
        )

    async def _wait_for_readers(self, seconds: float) -> None:
        """Let the handlers write their last event and give their readers back."""
        await _until(lambda: not self.presence.readers, seconds)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
