"""Sessions as use cases: look, list, make, delete."""

from __future__ import annotations

from dataclasses import dataclass

from viva_server.chat.service import ChatService
from viva_server.errors import NotFoundError
from viva_server.store import sessions as store
from viva_server.store.driver.database import Database
from viva_server.store.people import Person
from viva_server.store.sessions import Message, SessionItem
from viva_server.values import new_id


@dataclass(frozen=True, slots=True)
class ActiveReply:
    """The live reply of a session; `offset` characters of it are stored."""

    message_id: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A session at one moment: its newest messages, oldest first."""

    session_id: str | None
    mode: str | None
    messages: tuple[Message, ...]
    has_more: bool
    active_reply: ActiveReply | None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a person's sessions; `total` counts all of them."""

    items: tuple[SessionItem, ...]
    total: int


class SessionService:
    """What people do with their sessions besides writing in them."""

    def __init__(self, database: Database, chat: ChatService) -> None:
        self._database = database
        self._chat = chat

    async def snapshot(
        self,
        person: Person,
        session_id: str | None,
        *,
        limit: int,
        before_seq: int | None,
    ) -> Snapshot:
        """Give the newest `limit` messages of a session, by default the newest one.

        Raises:
            NotFoundError: the person has no session of this id.
        """
        session = await store.find_session(self._database, person, session_id)
        if session is None:
            if session_id is not None:
                raise NotFoundError("session")
            return _empty(None, None)
        newest_first = await self._database.fetch(
            "load_messages",
            Message,
            session_id=session.id,
            before_seq=before_seq,
            messages=limit + 1,
        )
        page = newest_first[:limit]
        newest = page
        if before_seq is not None:
            newest = await self._database.fetch(
                "load_messages",
                Message,
                session_id=session.id,
                before_seq=None,
                messages=1,
            )
        return Snapshot(
            session_id=session.id,
            mode=session.mode,
            messages=tuple(reversed(page)),
            has_more=len(newest_first) > limit,
            active_reply=_active(newest),
        )

    async def list(self, person: Person, *, page: int, page_size: int) -> SessionPage:
        """Give one page of the person's sessions, newest first."""
        items, total = await store.list_sessions(
            self._database, person, page=page, page_size=page_size
        )
        return SessionPage(tuple(items), total)

    async def add(self, person: Person, mode: str | None) -> Snapshot:
        """Make a new session, the newest from now on."""
        session_id = new_id()
        await self._database.execute(
            "add_session",
            session_id=session_id,
            channel=person.channel,
            person=person.id,
            mode=mode,
        )
        return _empty(session_id, mode)

    async def delete(self, person: Person, session_id: str) -> None:
        """Delete a session; a live reply in it is stopped first.

        Raises:
            NotFoundError: the person has no such session.
            OverloadedError: the live reply could not be stopped in time.
        """
        while True:
            outcome = await store.delete_quiet_session(
                self._database, person, session_id
            )
            if outcome is False:
                raise NotFoundError("session")
            if outcome is True:
                return
            await self._chat.stop(person, outcome)


def _empty(session_id: str | None, mode: str | None) -> Snapshot:
    return Snapshot(
        session_id=session_id,
        mode=mode,
        messages=(),
        has_more=False,
        active_reply=None,
    )


def _active(newest_first: list[Message]) -> ActiveReply | None:
    if newest_first and newest_first[0].status == "streaming":
        return ActiveReply(newest_first[0].id, len(newest_first[0].content))
    return None
