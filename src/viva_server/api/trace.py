"""The handler of /whatsapp/trace/{key_id}: the whole way of one message, with times."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from viva_server.api import wire
from viva_server.api.answers import (
    TraceAnswer,
    TraceDelivery,
    TraceMessage,
    TraceReply,
    TraceSend,
    TraceTurn,
)
from viva_server.api.identity import IdentifyCaller
from viva_server.api.operations import ADMIN_SCOPE
from viva_server.api.problems import Problem
from viva_server.auth import require_scope
from viva_server.services import Services
from viva_server.store.db import Database, Row

_MAX_ID = 255

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


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
            raise Problem("message_not_found", "Nothing is known of this message.")
        return web.json_response(body=wire.to_json(trace))


async def load_trace(database: Database, message_id: str) -> TraceAnswer | None:
    """Load all that is known of a message, a person's or one that was sent.

    None if there is nothing. It takes several statements, so that a message under way
    may show its turn without the reply that has just begun.
    """
    deliveries = await database.fetch("trace_deliveries", message_id=message_id)
    messages = await database.fetch("trace_messages", message_id=message_id)
    sent = await database.fetch("find_turns_of_sent", message_id=message_id)
    if not (deliveries or messages or sent):
        return None
    turn_ids = list({row.turn_id for row in (*messages, *sent)} - {None})
    turns = await database.fetch("trace_turns", turn_ids=turn_ids)
    reply_ids = [reply_id for turn in turns for reply_id in turn.reply_ids]
    found = await database.fetch("trace_replies", message_ids=reply_ids)
    replies = {row.id: _shown(TraceReply, row) for row in found}
    sends = await database.fetch("trace_sends", turn_ids=turn_ids)

    def with_parts(turn: Row) -> TraceTurn:
        return _shown(
            TraceTurn,
            turn,
            replies=[replies[i] for i in turn.reply_ids if i in replies],
            sends=[_shown(TraceSend, s) for s in sends if s.turn_id == turn.id],
        )

    return TraceAnswer(
        message_id=message_id,
        deliveries=[_shown(TraceDelivery, row) for row in deliveries],
        messages=[_shown(TraceMessage, row) for row in messages],
        turns=[with_parts(turn) for turn in turns],
    )


def _shown(shape: type[_Shape], row: Row, **more: object) -> _Shape:
    """Take what is shown of a row, and what is not in it."""
    return msgspec.convert({**row._asdict(), **more}, shape)
