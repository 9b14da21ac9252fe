"""Writing a reply to a client: as a stream of events, or in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from viva_server import sse
from viva_server.api.failures import describe_failure
from viva_server.api.request import bound_buffers
from viva_server.chat.service import ChatService, Reading
from viva_server.chat.text import Ending, Reader, ReaderCutError, ReaderGoneError

_WANTED_ENDS = frozenset({"stopped", "superseded", "shutdown", "disconnected"})
"""Ends that somebody wanted: without text they are told by `done`, not as an error."""


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
