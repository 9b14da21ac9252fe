"""Handlers of /viva/chat: ask, stream, come back, stop."""

from __future__ import annotations

from aiohttp import web

from viva_server import sse
from viva_server.api import wire
from viva_server.api.edge import Edge
from viva_server.api.failures import describe_failure
from viva_server.api.gate import read_json
from viva_server.api.identity import IdentifyPerson
from viva_server.api.messages import message_item
from viva_server.api.problems import Problem, reply_failed, reply_pending
from viva_server.api.query import read_idempotency_key
from viva_server.api.streaming import (
    ClientConnection,
    has_failed,
    stream_reply,
    wait_for_reply,
)
from viva_server.chat.admission import Question
from viva_server.chat.service import ChatService, Reading
from viva_server.chat.text import ReaderCutError, ReaderGoneError
from viva_server.errors import (
    OverloadedError,
    ReplyInProgressError,
    ReplyPendingError,
)
from viva_server.services import Services


class ChatHandlers:
    """The routes by which a person and the assistant talk."""

    def __init__(
        self, services: Services, identify: IdentifyPerson, edge: Edge
    ) -> None:
        self._services = services
        self._identify = identify
        self._edge = edge
        # Set by the routes, which know the prefix.
        self.resume_route: web.Resource | None = None

    @property
    def _chat(self) -> ChatService:
        return self._services.chat

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Answer a message in one piece."""
        reading = await self._start(request)
        try:
            text, ending = await wait_for_reply(self._chat, reading)
        except ReaderGoneError:
            # Nobody is there to read this; the reply is stored all the same.
            raise ConnectionResetError from None
        except ReaderCutError:
            if "Idempotency-Key" in request.headers:
                raise OverloadedError from None
            raise self._pending(reading.message_id) from None
        if has_failed(ending):
            failure = describe_failure(ending)
            raise reply_failed(
                failure.code,
                failure.text,
                retryable=failure.retryable,
                message_id=reading.message_id,
            )
        return web.json_response(
            body=wire.to_json(
                wire.ChatAnswer(
                    resposta=text,
                    session_id=reading.session_id,
                    message_id=reading.message_id,
                    user_message_id=reading.user_message_id,
                    status=ending.status,
                    finish_reason=ending.finish_reason,
                )
            )
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer a message as a stream."""
        return await self._write(request, await self._start(request))

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Go on with a stream at the client's cursor."""
        message_id = wire.known_id(request.match_info["message_id"], "message")
        person = await self._identify(request)
        cursor = _cursor(request)
        if cursor == (message_id, sse.END):
            await self._chat.require(person, message_id)
            return web.Response(status=204)
        offset = cursor[1] if cursor is not None and cursor[0] == message_id else 0
        reading = await self._chat.resume(
            person,
            message_id,
            offset if isinstance(offset, int) else 0,
            ClientConnection(request),
        )
        return await self._write(request, reading)

    async def again(self, request: web.Request) -> web.StreamResponse:
        """Answer the newest reply's question anew, as a stream."""
        message_id = wire.known_id(request.match_info["message_id"], "message")
        cursor_id, cursor_offset = _position(request)
        question = Question.again(
            await self._identify(request),
            message_id,
            key=_key(request),
            cursor_id=cursor_id,
            cursor_offset=cursor_offset,
        )
        return await self._write(request, await self._ask(request, question))

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """End a reply and show its message."""
        message_id = wire.known_id(request.match_info["message_id"], "message")
        person = await self._identify(request)
        message = await self._chat.stop(person, message_id)
        return web.json_response(body=wire.to_json(message_item(message)))

    async def _start(self, request: web.Request) -> Reading:
        person = await self._identify(request)
        key = _key(request)
        body = wire.read_chat_request(await read_json(request))
        cursor_id, cursor_offset = _position(request)
        question = Question(
            person=person,
            content=body.mensagem,
            session_id=body.session_id,
            mode=body.modo,
            context_length=body.contexto_len,
            key=key,
            cursor_id=cursor_id,
            cursor_offset=cursor_offset,
        )
        return await self._ask(request, question)

    async def _ask(self, request: web.Request, question: Question) -> Reading:
        try:
            return await self._chat.ask(question, ClientConnection(request))
        except ReplyInProgressError as error:
            raise Problem(
                "reply_in_progress",
                "The session has a live reply that somebody reads.",
                message_id=error.message_id,
                resume_url=self._location(error.message_id),
            ) from None
        except ReplyPendingError as error:
            raise self._pending(error.message_id) from None

    def _pending(self, message_id: str) -> Problem:
        return reply_pending(message_id, self._location(message_id))

    async def _write(
        self, request: web.Request, reading: Reading
    ) -> web.StreamResponse:
        location = self._location(reading.message_id)
        headers = {**self._edge.headers(request), "Content-Location": location}
        return await stream_reply(request, self._chat, reading, headers=headers)

    def _location(self, message_id: str) -> str:
        assert self.resume_route is not None, "set with the routes"
        return str(self.resume_route.url_for(message_id=message_id))


def _key(request: web.Request) -> str | None:
    return read_idempotency_key(request.headers.getall("Idempotency-Key", []))


def _position(request: web.Request) -> tuple[str | None, int]:
    """Give the message that a POST's cursor names, and how far it was read."""
    match _cursor(request):
        case (message_id, int() as offset):
            return message_id, offset
    return None, 0


def _cursor(request: web.Request) -> tuple[str, int | str] | None:
    """Read the cursor; what our encoder cannot have written is no cursor."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    return None if text is None else sse.parse_event_id(text)
