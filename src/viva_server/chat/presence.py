"""Who reads which reply: seen at the sockets, shared through the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from viva_server.chat.reply import Connection, LiveReply, Reader, ReplyText, ending_of
from viva_server.errors import StoreError
from viva_server.store.driver.database import Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.replies import FollowedReply, Request, StoredReply

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 15.0
WRITE_DEADLINE_SECONDS = 20.0
AWAY_SECONDS = 30.0
_SHARE_SECONDS = 0.2
_FOLLOW_SECONDS = 0.1
_RENEW_SECONDS = 1.0


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


class RemoteReplies:
    """Follows the journal for all of them with one query every 0.1 s."""

    def __init__(
        self,
        database: Database,
        *,
        process_id: Callable[[], str],
        away_seconds: float,
    ) -> None:
        self._database = database
        self._process_id = process_id
        self._away_seconds = away_seconds
        self._replies: dict[str, ReplyText] = {}
        self._told_as = ""
        self._told: set[str] = set()
        self._told_at = float("-inf")
        self._some = asyncio.Event()
        self._answered_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="viva follow")

    async def stop(self) -> None:
        """End the following; readers are cut and resume elsewhere."""
        try:
            if self._task is not None:
                await end_task(self._task)
        finally:
            for reply in self._replies.values():
                reply.cut()

    def open(self, stored: StoredReply) -> ReplyText:
        """Give the reply as read here; a stored one that has ended has its ending."""
        if stored.status == "streaming" and stored.message_id in self._replies:
            return self._replies[stored.message_id]
        reply = ReplyText(stored.message_id, stored.text)
        if stored.status == "streaming":
            self._replies[stored.message_id] = reply
            if not self._some.is_set():
                self._answered_at = asyncio.get_running_loop().time()
                self._some.set()
        else:
            reply.ending = ending_of(stored, stored.text, stored.message_count)
        return reply

    async def tell(self) -> None:
        """Write which replies of others are read here, at changes and each second.

        What was told under an id that has been declared dead is told again.
        """
        read = {m for m, reply in self._replies.items() if reply.readers}
        me = self._process_id()
        if me != self._told_as:
            self._told_as, self._told = me, set()
        now = asyncio.get_running_loop().time()
        if gone := self._told - read:
            await self._database.execute(
                "remove_far_readers", process_id=me, message_ids=list(gone)
            )
        if read and (read - self._told or now - self._told_at > _RENEW_SECONDS):
            await self._database.execute(
                "renew_far_readers", process_id=me, message_ids=list(read)
            )
            self._told_at = now
        self._told = read

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                await self._follow()
            except StoreError as error:
                logger.debug("Cannot follow replies of other processes: %s", error)
                self._cut_if_away()

    async def _follow(self) -> None:
        for message_id in [m for m, r in self._replies.items() if not r.readers]:
            del self._replies[message_id]
        if not self._replies:
            self._some.clear()
            return
        known = {m: reply.length for m, reply in self._replies.items()}
        updates = await self._database.fetch(
            "follow_replies",
            FollowedReply,
            message_ids=list(known),
            known=list(known.values()),
        )
        self._answered_at = asyncio.get_running_loop().time()
        for message_id in known.keys() - {followed.message_id for followed in updates}:
            self._replies.pop(message_id).cut()  # deleted, or lost by a failover
        for followed in updates:
            self._take(followed)

    def _take(self, followed: FollowedReply) -> None:
        reply = self._replies[followed.message_id]
        if followed.text:
            reply.committed(followed.text)
        if followed.status == "streaming":
            return
        del self._replies[followed.message_id]
        text = reply.text_after(0)
        reply.closed(ending_of(followed, text, followed.message_count))

    def _cut_if_away(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._answered_at > self._away_seconds:
            for reply in self._replies.values():
                reply.cut()
            self._replies.clear()
