"""The handler of /whatsapp/trace/{key_id}: the whole way of one message, with times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aiohttp import web

from viva_server.api import wire
from viva_server.api.identity import IdentifyCaller
from viva_server.api.operations import ADMIN_SCOPE
from viva_server.api.problems import Problem
from viva_server.auth import require_scope
from viva_server.services import Services
from viva_server.store.db import Row
from viva_server.store.trace import Trace, load_trace

_MAX_ID = 255


class TraceHandler:
    """The route by which an operator follows a message. It shows no content."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show all that is known of a message, a person's or one that was sent.

        Raises:
            AuthError: no token, or one without the scope admin.
            Problem: 404, nothing is known of the id.
        """
        require_scope(await self._identify(request), ADMIN_SCOPE)
        key_id = request.match_info["key_id"]
        trace = None
        if len(key_id) <= _MAX_ID and "\0" not in key_id:
            trace = await load_trace(self._services.database, key_id)
        if trace is None:
            raise Problem(404, "message_not_found", "Nothing is known of this message.")
        return web.json_response(body=wire.to_json(trace_body(key_id, trace)))


def trace_body(key_id: str, trace: Trace) -> dict[str, Any]:
    """Return a trace as it is shown."""
    replies = {row.id: _members(row) for row in trace.replies}
    return {
        "message_id": key_id,
        "deliveries": [_delivery(row) for row in trace.deliveries],
        "messages": [_members(row) for row in trace.messages],
        "turns": [
            {
                **_members(turn, without="reply_ids"),
                "replies": [replies[i] for i in turn.reply_ids if i in replies],
                "sends": [_members(s) for s in trace.sends if s.turn_id == turn.id],
            }
            for turn in trace.turns
        ],
    }


def _delivery(row: Row) -> dict[str, Any]:
    again: Iterable[datetime] = row.redelivered_at
    return {
        **_members(row),
        "redelivered_at": [moment.isoformat() for moment in again],
    }


def _members(row: Row, *, without: str = "") -> dict[str, Any]:
    named: dict[str, Any] = row._asdict()
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in named.items()
        if name != without
    }
