"""Who reads which reply: seen at the sockets, shared through the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from viva_server.chat.remote import RemoteReplies
from viva_server.chat.reply import LiveReply
from viva_server.chat.text import Connection, Reader, ReplyText
from viva_server.errors import StoreError
from viva_server.store.driver.database import Database
from viva_server.store.replies import Request

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 15.0
WRITE_DEADLINE_SECONDS = 20.0
AWAY_SECONDS = 30.0
_SHARE_SECONDS = 0.2


class Presence:
    """Notices readers that left, and ends replies that nobody reads any more.

    Two tasks: one looks at all connections every 0.1 s and never waits; the other
    exchanges with the database what other processes have to know. A client that leaves
    is so noticed without a write, on both settings of `handler_cancellation`, and no
    handler ever awaits the database on its way out.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: Callable[[], str],
        remote: RemoteReplies,
        grace_seconds: float,
        away_seconds: Callable[[LiveReply], float],
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self.keep_alive_seconds = keep_alive_seconds
        self.local: dict[str, LiveReply] = {}
        self._database = database
        self._owner = owner
        self._remote = remote
        self._grace_seconds = grace_seconds
        self._away_seconds = away_seconds
        self._readers: set[Reader] = set()
        # Local replies without a local reader, as the database has been told.
        self._told_left: set[str] = set()
        # When neither a local nor a remote reader was left (loop time).
        self._unread_since: dict[str, float] = {}
        self._read_remotely: set[str] = set()
        self._requests_at = float("-inf")
        self._nudge = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._watch_forever(), name="viva watch"),
            asyncio.create_task(self._share_forever(), name="viva presence"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abort_readers(self) -> None:
        """Cut the connections of all readers that are left, without a clean end."""
        for reader in self._readers:
            reader.connection.abort()

    @property
    def readers(self) -> int:
        """How many readers there are in this process."""
        return len(self._readers)

    def attach(self, reply: ReplyText, cursor: int, connection: Connection) -> Reader:
        """Make a reader; give it back with `leave`, whatever happens."""
        now = asyncio.get_running_loop().time()
        reader = Reader(reply, cursor, connection, now)
        reply.readers.add(reader)
        self._readers.add(reader)
        self._unread_since.pop(reply.message_id, None)
        if reply.message_id in self._told_left or not isinstance(reply, LiveReply):
            self._nudge.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """Take a reader away; what is pending of its reply is committed at once.

        Never waits and may be called more than once, also by a cancelled handler.
        """
        self._readers.discard(reader)
        reader.reply.readers.discard(reader)
        if not reader.reply.readers:
            self._last_reader_left(reader.reply)

    def look(self, reply: ReplyText) -> bool:
        """Whether anybody here still reads a reply, judged now at the sockets."""
        for reader in list(reply.readers):
            self._look_at(reader, asyncio.get_running_loop().time())
        return bool(reply.readers)

    def _last_reader_left(self, reply: ReplyText) -> None:
        if isinstance(reply, LiveReply):
            reply.flush()
        self._nudge.set()

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._watch()

    def _watch(self) -> None:
        now = asyncio.get_running_loop().time()
        for reply in self.local.values():
            if self._away_seconds(reply) > AWAY_SECONDS:
                self._send_away(reply)
        for reader in list(self._readers):
            self._look_at(reader, now)
        self._count_graces(now)

    def _count_graces(self, now: float) -> None:
        for reply in list(self.local.values()):
            self._count_grace(reply, now)

    def _look_at(self, reader: Reader, now: float) -> None:
        if reader.connection.is_closing():
            reader.is_gone = True
            self.leave(reader)
            reader.wake()
        elif reader.writing_since is not None:
            if now - reader.writing_since > WRITE_DEADLINE_SECONDS:
                reader.connection.abort()
        elif now - reader.last_write > self.keep_alive_seconds:
            reader.last_write = now
            reader.is_silent = True
            reader.wake()

    def _send_away(self, reply: ReplyText) -> None:
        """Cut the readers of a reply that cannot be stored for now; it is kept."""
        for reader in list(reply.readers):
            reader.is_cut = True
            reader.wake()

    def _count_grace(self, reply: LiveReply, now: float) -> None:
        message_id = reply.message_id
        if reply.readers or message_id in self._read_remotely or reply.end_reason:
            self._unread_since.pop(message_id, None)
            return
        since = self._unread_since.setdefault(message_id, now)
        # Nobody may have come back elsewhere since: that was asked after the leaving.
        if now - since >= self._grace_seconds and self._requests_at > since:
            reply.end("disconnected")

    async def _share_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHARE_SECONDS):
                    await self._nudge.wait()
            self._nudge.clear()
            try:
                await self._share()
            except StoreError as error:
                logger.debug("No exchange about readers: %s", error)
                await asyncio.sleep(_SHARE_SECONDS)

    async def _share(self) -> None:
        await self._tell_left()
        await self._remote.tell()
        asked_at = asyncio.get_running_loop().time()
        if self.local:
            requests = await self._database.fetch(
                "load_requests", Request, owner=self._owner()
            )
            self._read_remotely = {r.message_id for r in requests if r.is_read_remotely}
            for request in requests:
                if request.end_requested and request.message_id in self.local:
                    self.local[request.message_id].end(request.end_requested)
        self._requests_at = asked_at
        self._forget_ended()
        self._count_graces(asyncio.get_running_loop().time())

    async def _tell_left(self) -> None:
        changed = {
            message_id: bool(reply.readers)
            for message_id, reply in self.local.items()
            if bool(reply.readers) == (message_id in self._told_left)
        }
        if not changed:
            return
        await self._database.execute(
            "mark_left",
            owner=self._owner(),
            message_ids=list(changed),
            are_read=list(changed.values()),
        )
        self._told_left |= {m for m, is_read in changed.items() if not is_read}
        self._told_left -= {m for m, is_read in changed.items() if is_read}

    def _forget_ended(self) -> None:
        for known in (self._told_left, self._read_remotely):
            known.intersection_update(self.local)
        for message_id in self._unread_since.keys() - self.local.keys():
            del self._unread_since[message_id]
