"""Replies of other processes that somebody reads here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from viva_server.chat.text import ReplyText, ending_of
from viva_server.errors import StoreError
from viva_server.store.driver.database import Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.replies import (
    FollowedReply,
    StoredReply,
)

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 0.1
_RENEW_SECONDS = 1.0


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
            assert stored.finish_reason is not None, "an ended reply has a reason"
            reply.ending = ending_of(
                stored.text,
                status=stored.status,
                finish_reason=stored.finish_reason,
                error_code=stored.error_code,
                error_is_final=stored.error_is_final,
                message_count=stored.message_count,
            )
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
        assert followed.finish_reason is not None, "an ended reply has a reason"
        del self._replies[followed.message_id]
        reply.closed(
            ending_of(
                reply.text_after(0),
                status=followed.status,
                finish_reason=followed.finish_reason,
                error_code=followed.error_code,
                error_is_final=followed.error_is_final,
                message_count=followed.message_count,
            )
        )

    def _cut_if_away(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._answered_at > self._away_seconds:
            for reply in self._replies.values():
                reply.cut()
            self._replies.clear()
