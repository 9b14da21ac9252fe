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
from viva_server.store.db import Row
from viva_server.store.trace import Trace, load_trace

_MAX_ID = 255

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class TraceHandler:
    """The way of a message, for an operator."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show the way of a WhatsApp message.

        Everything with its time, and no content: deliveries, why it is not answered,
        its turn, replies, each attempt to send, Evolution's receipts.

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
        return web.json_response(body=wire.to_json(trace_answer(key_id, trace)))


def trace_answer(key_id: str, trace: Trace) -> TraceAnswer:
    """Return a trace as it is shown."""
    replies = {row.id: _shown(TraceReply, row) for row in trace.replies}
    return TraceAnswer(
        message_id=key_id,
        deliveries=[_shown(TraceDelivery, row) for row in trace.deliveries],
        messages=[_shown(TraceMessage, row) for row in trace.messages],
        turns=[
            _shown(
                TraceTurn,
                turn,
                replies=[replies[i] for i in turn.reply_ids if i in replies],
                sends=[
                    _shown(TraceSend, s) for s in trace.sends if s.turn_id == turn.id
                ],
            )
            for turn in trace.turns
        ],
    )


def _shown(shape: type[_Shape], row: Row, **more: object) -> _Shape:
    """Take what is shown of a row, and what is not in it."""
    return msgspec.convert({**row._asdict(), **more}, shape)
