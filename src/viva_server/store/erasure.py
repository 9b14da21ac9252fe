"""The erasure of a person: in transactions of their own, to be repeated at will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from viva_server.errors import OverloadedError
from viva_server.store.driver.database import Database
from viva_server.store.export import FIRST_ID
from viva_server.store.people import Counts, Person, Subject
from viva_server.store.retention import BATCH, Removal, patiently, remove_session

Advance = Callable[[int], None]
"""Called with how many more messages were removed, or deliveries looked at."""

# A process that stood still is declared dead after 15 s at the latest, 17 after a cut.
_STOPPING_SECONDS = 40.0
_POLL_SECONDS = 0.1
_STRETCH = 100  # deliveries of up to 8 MiB each, searched for numbers


class Erasure:
    """Removes what is stored of one person; what is gone stays gone when it is cut.

    Replies of dead owners are closed by others: a server, or the caller's `Recovery`.
    It needs nothing of an earlier, interrupted run.
    """

    def __init__(
        self, database: Database, subject: Subject, *, advance: Advance
    ) -> None:
        self.counts: Counts = {"sessions": 0, "messages": 0, "deliveries": 0}
        self._database = database
        self._subject = subject
        self._whatsapp = _WhatsAppErasure(database, subject)
        self._advance = advance

    async def run(self) -> None:
        """Erase.

        Raises:
            OverloadedError: a live reply, or a send, was not ended by its owner.
            StoreError: or one of its kinds.
        """
        for person in self._subject.people:
            await self._remove_sessions(person)
            await self._remove_rest(person)
        # Text that a late statement may have left of a reply; it names nobody.
        await self._database.execute("sweep_journal")
        if self._subject.instance is not None:
            await self._empty_inbox()
            await self._whatsapp.remove()

    async def _remove_sessions(self, person: Person) -> None:
        more = True
        while more:
            await self._stop(person)
            more = await patiently(lambda: self._remove_next_session(person))

    async def _remove_next_session(self, person: Person) -> bool:
        """Remove one session in one transaction; False when there was none."""
        async with self._database.transaction() as transaction:
            session = await transaction.fetch_one(
                "lock_next_session", channel=person.channel, person=person.id
            )
            if session is None:
                return False
            live = await transaction.fetch_one("find_live_reply", session_id=session.id)
            if live is not None:
                return True  # it began after the others were stopped
            messages = await remove_session(transaction, session.id)
        self.counts["sessions"] += 1
        self.counts["messages"] += messages
        self._advance(messages)
        return True

    async def _remove_rest(self, person: Person) -> None:
        """Remove what belongs to no session of the person: a line for each table."""
        removal = Removal(self._database)
        await removal.execute(
            "remove_keys", channel=person.channel, person=person.id, batch=BATCH
        )

    async def _empty_inbox(self) -> None:
        """Empty what names the person; first what only learned addresses are of.

        The deliveries that tell its lids are the last to be emptied: a second run
        finds them until nothing else is left.
        """
        if self._subject.learned:
            await self._empty(self._subject.learned, self._subject.learned_numbers)
        await self._empty(self._subject.jids, self._subject.numbers)

    async def _empty(self, jids: tuple[str, ...], numbers: str) -> None:
        after_id: str | None = FIRST_ID
        while after_id is not None:
            stretch = partial(self._empty_stretch, after_id, jids, numbers)
            after_id = await patiently(stretch)

    async def _empty_stretch(
        self, after_id: str, jids: tuple[str, ...], numbers: str
    ) -> str | None:
        [row] = await self._database.fetch(
            "empty_deliveries",
            instance=self._subject.instance,
            jids=list(jids),
            numbers=numbers,
            after_id=after_id,
            batch=_STRETCH,
        )
        self.counts["deliveries"] += row.emptied
        self._advance(row.looked)
        return None if row.last_id is None else str(row.last_id)

    async def _stop(self, person: Person) -> None:
        """Have work ended by its owners.

        A chat is waited for, too: its owner may be about to begin a reply.
        """
        try:
            async with asyncio.timeout(_STOPPING_SECONDS):
                while await self._is_busy(person):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise OverloadedError(
                "a live reply of the person, or a send, did not end: "
                "run the command again"
            ) from None

    async def _is_busy(self, person: Person) -> bool:
        live = await self._database.execute(
            "request_ends", channel=person.channel, person=person.id
        )
        return await self._whatsapp.stop() or live > 0


class _WhatsAppErasure:
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
