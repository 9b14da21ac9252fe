"""A person's sessions: what is asked, the handlers, what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from viva_server.api.request import IdentifyPerson, read_json
from viva_server.api.wire import (
    MAX_MODO_CHARS,
    Count,
    Id,
    Modo,
    Pairs,
    Seq,
    Time,
    bad_query,
    clamped,
    known_id,
    optional_session_id,
    query_number,
    refuse,
    single_values,
    text_errors,
    to_json,
)
from viva_server.chat import sessions
from viva_server.store import sessions as store
from viva_server.values import Channel, FinishReason, Status

MAX_PAGE = 1_000_000
MAX_MESSAGES = 250
MAX_PAGE_SIZE = 100
MAX_SEQ = 2**31 - 1

Tipo = Literal["usuario", "ia"]


class SnapshotQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of which session a snapshot shows."""

    session_id: Annotated[
        Id | None, Meta(description="Which session; by default the newest.")
    ] = None
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_MESSAGES,
            description="How many messages at most; a number beyond becomes the limit.",
        ),
    ] = 120
    before: Annotated[
        Seq | None, Meta(description="Only messages before this `seq`.")
    ] = None


class SessionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a person's sessions is wanted."""

    page: Annotated[
        int, Meta(ge=1, le=MAX_PAGE, description="Which page; clamped and echoed.")
    ] = 1
    page_size: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_PAGE_SIZE,
            description="How many sessions a page has; clamped and echoed.",
        ),
    ] = 20

    @property
    def offset(self) -> int:
        """How many sessions come before this page; it fits 32 bits."""
        return (self.page - 1) * self.page_size


class NewSessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a new session."""

    modo: Modo | None = None


class MessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message, as it stands in a snapshot."""

    id: Id
    seq: Seq
    tipo: Tipo
    conteudo: str
    modo: str | None
    anexos: list[Any]
    meta: dict[str, Any]
    status: Status
    finish_reason: FinishReason | None
    created_at: Time


class ActiveReply(msgspec.Struct, frozen=True, kw_only=True):
    """The session's live reply and how many characters of it are stored."""

    message_id: Id
    offset: Count


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The newest messages of a session, oldest first."""

    session_id: Id | None = None
    modo: str | None = None
    messages: list[MessageItem] = []
    has_more: bool = False
    active_reply: ActiveReply | None = None


class SessionItem(msgspec.Struct, frozen=True, kw_only=True):
    """A session in the list of a person's sessions."""

    id: Id
    modo: str | None
    titulo: str | None
    channel: Channel
    message_count: Count
    created_at: Time
    updated_at: Time
    last_message_at: Time | None


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a person's sessions, newest first."""

    items: list[SessionItem]
    total: Count
    page: Seq
    page_size: Seq


class SessionHandlers:
    """A person's sessions."""

    def __init__(
        self, service: sessions.SessionService, identify: IdentifyPerson
    ) -> None:
        self._sessions = service
        self._identify = identify

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """Show the newest messages of a session.

        Oldest first. Without any session: `session_id` null, no messages.
        """
        person = await self._identify(request)
        wanted = read_snapshot_query(request.query.items())
        snapshot = await self._sessions.snapshot(
            person, wanted.session_id, limit=wanted.limit, before_seq=wanted.before
        )
        return web.json_response(body=to_json(snapshot_body(snapshot)))

    async def list(self, request: web.Request) -> web.StreamResponse:
        """List the person's sessions.

        Newest first: the one that was made, or got a message, last.
        """
        person = await self._identify(request)
        wanted = read_sessions_query(request.query.items())
        page = await self._sessions.list(
            person, page=wanted.page, page_size=wanted.page_size
        )
        return web.json_response(body=to_json(session_page(page, wanted)))

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Begin a new session."""
        person = await self._identify(request)
        body = await read_json(request, optional=True)
        snapshot = await self._sessions.add(person, read_new_session(body).modo)
        return web.json_response(body=to_json(snapshot_body(snapshot)))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a session.

        A live reply in it is stopped first.
        """
        session_id = known_id(request.match_info["session_id"], "session")
        person = await self._identify(request)
        await self._sessions.delete(person, session_id)
        return web.Response(status=204)


_DEFAULTS = SnapshotQuery()
_FIRST = SessionsQuery()


def read_snapshot_query(pairs: Pairs) -> SnapshotQuery:
    """Read `session_id`, `limit` (1…250 clamped, else 120) and `before` (a `seq`).

    Raises:
        Problem: 400 for what is no number or stands twice; 404 for no id.
    """
    values = single_values(pairs)
    before = query_number(values, "before")
    if before is not None and before < 1:
        raise bad_query("before", "must be 1 or more")
    return SnapshotQuery(
        session_id=optional_session_id(values.get("session_id"), "/query/session_id"),
        limit=clamped(query_number(values, "limit"), _DEFAULTS.limit, MAX_MESSAGES),
        before=None if before is None else min(before, MAX_SEQ),
    )


def read_sessions_query(pairs: Pairs) -> SessionsQuery:
    """Read `page` (from 1) and `page_size` (1…100, else 20), both clamped.

    Raises:
        Problem: 400 for what is no number or stands twice.
    """
    values = single_values(pairs)
    return SessionsQuery(
        page=clamped(query_number(values, "page"), _FIRST.page, MAX_PAGE),
        page_size=clamped(
            query_number(values, "page_size"), _FIRST.page_size, MAX_PAGE_SIZE
        ),
    )


def read_new_session(body: dict[str, Any]) -> NewSessionRequest:
    """Check a decoded body; raise Problem 422 if it is wrong."""
    refuse(text_errors(body, "modo", MAX_MODO_CHARS))
    return NewSessionRequest(modo=body.get("modo"))


def message_item(message: store.Message) -> MessageItem:
    """Shape a message as it stands in a snapshot."""
    return MessageItem(
        id=message.id,
        seq=message.seq,
        tipo=tipo_of(message.role),
        conteudo=message.content,
        modo=message.mode,
        anexos=message.attachments,
        meta=message.meta,
        status=message.status,
        finish_reason=message.finish_reason,
        created_at=message.created_at,
    )


def snapshot_body(snapshot: sessions.Snapshot) -> Snapshot:
    """Shape a snapshot."""
    active = snapshot.active_reply
    return Snapshot(
        session_id=snapshot.session_id,
        modo=snapshot.mode,
        messages=[message_item(message) for message in snapshot.messages],
        has_more=snapshot.has_more,
        active_reply=None
        if active is None
        else ActiveReply(message_id=active.message_id, offset=active.offset),
    )


def session_page(page: sessions.SessionPage, query: SessionsQuery) -> SessionPage:
    """Shape a page of sessions; the query is echoed as it was taken."""
    return SessionPage(
        items=[_session_item(item) for item in page.items],
        total=page.total,
        page=query.page,
        page_size=query.page_size,
    )


def _session_item(item: store.SessionItem) -> SessionItem:
    return SessionItem(
        id=item.id,
        modo=item.mode,
        titulo=item.title,
        channel=item.channel,
        message_count=item.message_count,
        created_at=item.created_at,
        updated_at=item.updated_at,
        last_message_at=item.last_message_at,
    )


def tipo_of(role: str) -> Tipo:
    """Return the wire's word for a role ("user" or "assistant")."""
    return "usuario" if role == "user" else "ia"
