"""The part of an erasure that is WhatsApp's queue: chats, turns and sends."""

from __future__ import annotations

from viva_server.store.db import Database
from viva_server.store.removal import BATCH, Removal, patiently
from viva_server.store.subjects import Subject


class WhatsAppErasure:
    """Stops and removes a person's chats; does nothing for a user of the web."""

    def __init__(self, database: Database, subject: Subject) -> None:
        self._database = database
        self._instance = subject.instance
        self._jids = list(subject.jids)

    async def stop(self) -> bool:
        """Let nothing more be begun; True: repeat it, something may be under way.

        Messages are not answered any more, turns are ended, parts are not sent. A chat
        with an owner, and a request to Evolution, end by themselves.
        """
        if self._instance is None:
            return False
        row = await patiently(
            lambda: self._database.fetch_one(
                "stop_chats", instance=self._instance, jids=self._jids
            )
        )
        assert row is not None, "a SELECT without FROM gives one row"
        return bool(row.busy)

    async def remove(self) -> None:
        """Remove what `stop` has ended. What came since is new, and stays.

        The lids are the last to go: a second run knows by them what else is left.
        """
        instance, jids = self._instance, self._jids
        removal = Removal(self._database)
        await removal.execute(
            "remove_whatsapp_messages", instance=instance, jids=jids, batch=BATCH
        )
        await removal.execute("remove_turns", instance=instance, jids=jids, batch=BATCH)
        await self._database.execute("remove_chats", instance=instance, jids=jids)
        await self._database.execute("forget_lids", instance=instance, jids=jids)
