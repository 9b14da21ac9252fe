"""Asking, streaming, coming back, stopping: what is asked, handlers, the writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from msgspec import Meta

from viva_server import sse
from viva_server.api.edge import Edge
from viva_server.api.problems import Problem, reply_failed, reply_pending
from viva_server.api.request import IdentifyPerson, bound_buffers, read_json
from viva_server.api.sessions import message_item
from viva_server.api.wire import (
    MAX_MODO_CHARS,
    Id,
    Modo,
    known_id,
    optional_session_id,
    refuse,
    text_errors,
    to_json,
    type_errors,
)
from viva_server.chat.admission import Question
from viva_server.chat.reply import Ending, Reader, ReaderCutError, ReaderGoneError
from viva_server.chat.service import ChatService, Reading
from viva_server.errors import (
    OverloadedError,
    ReplyInProgressError,
    ReplyPendingError,
)
from viva_server.values import FinishReason, Status

MAX_MESSAGE_CHARS = 32_000
MAX_KEY_CHARS = 255

_WANTED_ENDS = frozenset({"stopped", "superseded", "shutdown", "disconnected"})
"""Ends that somebody wanted: without text they are told by `done`, not as an error."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message. Unknown members and `prompt_extra` are ignored."""

    # The constraints are what OpenAPI shows; `read_chat_request` enforces them.
    mensagem: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_MESSAGE_CHARS,
            pattern=r"\S",
            description="Not blank.",
        ),
    ]
    session_id: Annotated[
        str | None, Meta(description="Where it goes; by default the newest session.")
    ] = None
    modo: Modo | None = None
    contexto: Annotated[
        list[Any] | None, Meta(description="Only its length is ever used.")
    ] = None

    @property
    def contexto_len(self) -> int | None:
        """How many entries `contexto` has; None without one."""
        return None if self.contexto is None else len(self.contexto)


class ResumeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream goes on, for a client that cannot send headers."""

    after: Annotated[
        str | None,
        Meta(description="The same as `Last-Event-ID`, which goes before it."),
    ] = None


class ResumeHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream goes on."""

    last_event_id: Annotated[
        str | None, Meta(description="The `id` of the last event that was seen.")
    ] = msgspec.field(name="Last-Event-ID", default=None)


class ChatHeaders(ResumeHeaders, frozen=True, kw_only=True):
    """What makes a question one that was asked before."""

    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS, pattern="^[ -~]+$")]
        | None,
        Meta(
            description="The same key and body of one person give the same reply and "
            "one model call, however many requests come at once."
        ),
    ] = msgspec.field(name="Idempotency-Key", default=None)


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The stored reply."""

    resposta: str
    session_id: Id
    message_id: Id
    user_message_id: Id
    status: Status
    finish_reason: FinishReason | None
    midia: tuple[()] = ()


class ChatHandlers:
    """Asking, streaming, coming back, stopping."""

    def __init__(self, chat: ChatService, identify: IdentifyPerson, edge: Edge) -> None:
        self._chat = chat
        self._identify = identify
        self._edge = edge
        # Set by the routes, which know the prefix.
        self.resume_route: web.Resource | None = None

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Ask, and get the reply in one piece.

        Without `session_id` the message goes to the person's newest session, else to a
        new one. The reply is stored when the answer comes. One that broke off with text
        is 200 with `status` `partial`; a model that failed without text is 502.
        """
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
            body=to_json(
                ChatAnswer(
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
        """Ask, and get the reply as a stream.

        Without `session_id` the message goes to the person's newest session, else to a
        new one. Repeated with the same `Idempotency-Key`, or with the `Last-Event-ID`
        of the session's newest reply, it goes on with that reply.
        """
        return await self._write(request, await self._start(request))

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Go on with a stream.

        From the cursor on, live or long ended, on any process. A cursor that is unknown
        or impossible gives `offset` 0.
        """
        message_id = known_id(request.match_info["message_id"], "message")
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
        """Answer a question again.

        A new reply to the same question takes the place of the session's newest one,
        and its `seq`. The old one stays stored, with the new one's id in
        `meta.replaced_by`, and can be resumed and exported; snapshots and the model do
        not see it. Repeated with the same `Idempotency-Key`, which belongs to this
        `message_id` alone, it goes on with the new reply.
        """
        message_id = known_id(request.match_info["message_id"], "message")
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
        """Stop a reply.

        Answered after its text is committed; idempotent.
        """
        message_id = known_id(request.match_info["message_id"], "message")
        person = await self._identify(request)
        message = await self._chat.stop(person, message_id)
        return web.json_response(body=to_json(message_item(message)))

    async def _start(self, request: web.Request) -> Reading:
        person = await self._identify(request)
        key = _key(request)
        body = read_chat_request(await read_json(request))
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


def read_chat_request(body: dict[str, Any]) -> ChatRequest:
    """Check a decoded body.

    Raises:
        Problem: 422 with a pointer for every member that is wrong; 404 for a
            `session_id` that is a text but no id, since no session has it.
    """
    errors = [
        *text_errors(body, "mensagem", MAX_MESSAGE_CHARS, required=True),
        *text_errors(body, "modo", MAX_MODO_CHARS),
        *type_errors(body, "session_id", str, "must be a text"),
        *type_errors(body, "contexto", list, "must be an array"),
    ]
    refuse(errors)
    return ChatRequest(
        mensagem=body["mensagem"],
        session_id=optional_session_id(body.get("session_id"), "/session_id"),
        modo=body.get("modo"),
        contexto=body.get("contexto"),
    )


def read_idempotency_key(values: Sequence[str]) -> str | None:
    """Read all values of the header Idempotency-Key; None without one.

    Raises:
        Problem: 400 unless it is one value of 1 to 255 printable ASCII characters.
    """
    if not values:
        return None
    key = values[0]
    if len(values) > 1:
        raise _bad_key("stands more than once")
    if not (1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise _bad_key(f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return key


def _bad_key(message: str) -> Problem:
    errors = [("/headers/Idempotency-Key", message)]
    detail = "The header Idempotency-Key cannot be taken."
    return Problem("bad_idempotency_key", detail, errors=errors)


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


class ClientConnection:
    """The connection of one request, as a reader looks at it."""

    __slots__ = ("_transport",)

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        if self._transport is not None:
            bound_buffers(self._transport)

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def stream_reply(
    request: web.Request,
    chat: ChatService,
    reading: Reading,
    *,
    headers: dict[str, str],
) -> web.StreamResponse:
    """Write a reply's events until it ends or the client leaves.

    `headers` come on top of those of every stream.

    The reader is given back in every case: on `asyncio.CancelledError`, which a host
    with `handler_cancellation` and a stopping server raise here; on the failing write
    by which aiohttp tells of a client that left otherwise; and when the presence saw
    the connection close while this waited. What is pending of the reply is committed
    then, by tasks that no client can cancel.
    """
    response = web.StreamResponse(
        headers={
            **headers,
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
            "X-Content-Type-Options": "nosniff",
            "Viva-Message-Id": reading.message_id,
        }
    )
    try:
        writer = await response.prepare(request)
        if writer is not None and not response.compression:
            reading.reader.offer = _writer_at_once(writer, reading.reader)
        await _write_events(response, reading)
        await response.write_eof()
    except (ReaderGoneError, ReaderCutError, ConnectionError):
        # No clean end: whoever is still there must see a broken stream and come back.
        reading.reader.connection.abort()
    finally:
        chat.leave(reading)
    return response


def _writer_at_once(
    writer: AbstractStreamWriter, reader: Reader
) -> Callable[[str, int], bool] | None:
    """Make what writes new text without a task, as long as the client keeps pace.

    Each event is framed here as a chunk of HTTP/1.1 and given to the transport in one
    call: aiohttp's `write` does no more with a body that is chunked and not compressed,
    in a coroutine. It is called only while the reader waits in `Reader.next`, so the
    headers are out, the end is not, and no other write is under way.

    None where the body is not chunked (HTTP/1.0) or aiohttp's writer is another one.
    """
    if type(writer) is not StreamWriter or not writer.chunked:
        return None
    if (transport := writer.transport) is None:
        return None
    message_id = reader.reply.message_id
    time = asyncio.get_running_loop().time

    def write(text: str, cursor: int) -> bool:
        # Behind what waits in the buffer, whoever writes may have to wait as well.
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        event = sse.content_event(message_id, cursor, text)
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        size = len(chunk)
        writer.buffer_size += size
        writer.output_size += size  # of which the access log tells
        transport.write(chunk)
        reader.last_write = time()
        return True

    return write


async def _write_events(response: web.StreamResponse, reading: Reading) -> None:
    reader = reading.reader
    message_id = reading.message_id
    time = asyncio.get_running_loop().time
    data = sse.accepted_event(
        session_id=reading.session_id,
        message_id=message_id,
        user_message_id=reading.user_message_id,
        offset=reading.offset,
        resumed=reading.is_resumed,
    )
    while True:
        reader.writing_since = reader.last_write = time()
        await response.write(data)
        reader.writing_since = None
        text = await reader.next()
        if text is None:
            break
        data = (
            sse.content_event(message_id, reader.cursor, text)
            if text
            else sse.KEEP_ALIVE
        )
    ending = reader.reply.ending
    assert ending is not None, "a reader ends with its reply"
    reader.writing_since = time()
    await response.write(_last_event(reading, ending))


def _last_event(reading: Reading, ending: Ending) -> bytes:
    if has_failed(ending):
        failure = describe_failure(ending)
        return sse.error_event(
            error=failure.text,
            code=failure.code,
            retryable=failure.retryable,
            session_id=reading.session_id,
            message_id=reading.message_id,
        )
    return sse.done_event(
        session_id=reading.session_id,
        message_id=reading.message_id,
        status=ending.status,
        finish_reason=ending.finish_reason,
        chars=ending.chars,
        sha256=ending.sha256,
        message_count=ending.message_count,
    )


async def wait_for_reply(chat: ChatService, reading: Reading) -> tuple[str, Ending]:
    """Read a reply to its end and give all of it.

    Raises:
        ReaderGoneError: the client has left; the reply's grace has begun.
        ReaderCutError: the reply cannot be followed here any more.
    """
    try:
        while await reading.reader.next() is not None:
            pass
    finally:
        chat.leave(reading)
    ending = reading.reader.reply.ending
    assert ending is not None, "a reader ends with its reply"
    return reading.reader.reply.text_after(0), ending


def has_failed(ending: Ending) -> bool:
    """Whether a reply ended without text though somebody waited for it."""
    return ending.status == "failed" and ending.finish_reason not in _WANTED_ENDS


class Failure(NamedTuple):
    """A failure in the user's words (Portuguese), and for programs."""

    code: str
    text: str
    retryable: bool


_TRY_AGAIN = "Não consegui responder agora. Tente de novo em instantes."

_TEXTS = {
    "upstream_timeout": "A resposta demorou demais para começar. Tente de novo.",
    "reply_too_slow": "A resposta demorou demais. Tente de novo.",
    "upstream_empty": "O assistente não deu nenhuma resposta. Tente de novo.",
    "crashed": "O servidor foi interrompido antes de responder. Tente de novo.",
    "limit": "A resposta passou do limite permitido.",
    "content_filter": "O assistente não pode responder a esta mensagem.",
    "length": "A resposta passou do limite do modelo.",
    "insufficient_quota": "O assistente está sem saldo. Avise o responsável.",
    "upstream_refused": "O assistente está mal configurado. Avise o responsável.",
}


def describe_failure(ending: Ending) -> Failure:
    """Describe the ending of a stored reply that failed."""
    code = ending.error_code or ending.finish_reason
    return Failure(code, _TEXTS.get(code, _TRY_AGAIN), not ending.error_is_final)
