"""Handlers of /viva/chat/snapshot and /viva/chat/session(s)."""

from __future__ import annotations

from aiohttp import web

from viva_server.api import wire
from viva_server.api.gate import read_json
from viva_server.api.identity import IdentifyPerson
from viva_server.api.messages import session_page, snapshot_body
from viva_server.api.query import read_sessions_query, read_snapshot_query
from viva_server.chat.sessions import SessionService
from viva_server.services import Services


class SessionHandlers:
    """A person's sessions."""

    def __init__(self, services: Services, identify: IdentifyPerson) -> None:
        self._services = services
        self._identify = identify

    @property
    def _sessions(self) -> SessionService:
        return self._services.sessions

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """Show the newest messages of a session.

        Oldest first. Without any session: `session_id` null, no messages.
        """
        person = await self._identify(request)
        wanted = read_snapshot_query(request.query.items())
        snapshot = await self._sessions.snapshot(
            person, wanted.session_id, limit=wanted.limit, before_seq=wanted.before
        )
        return web.json_response(body=wire.to_json(snapshot_body(snapshot)))

    async def list(self, request: web.Request) -> web.StreamResponse:
        """List the person's sessions.

        Newest first: the one that was made, or got a message, last.
        """
        person = await self._identify(request)
        wanted = read_sessions_query(request.query.items())
        page = await self._sessions.list(
            person, page=wanted.page, page_size=wanted.page_size
        )
        return web.json_response(body=wire.to_json(session_page(page, wanted)))

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Begin a new session."""
        person = await self._identify(request)
        body = await read_json(request, optional=True)
        snapshot = await self._sessions.add(person, wire.read_new_session(body).modo)
        return web.json_response(body=wire.to_json(snapshot_body(snapshot)))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a session.

        A live reply in it is stopped first.
        """
        session_id = wire.known_id(request.match_info["session_id"], "session")
        person = await self._identify(request)
        await self._sessions.delete(person, session_id)
        return web.Response(status=204)
