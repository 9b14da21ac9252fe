"""Limits in time that aiohttp's server lacks; only for the standalone server.

aiohttp 3.14 waits without end for a request's head and answers what its parser
refuses in plain text, with a traceback in the log. The supported way to another
protocol is none, so these three classes override the least that does it, and the
tests in tests/faults/test_slow_http.py and test_smuggling.py fail if a new aiohttp
goes round them:

- `LimitedRunner._make_server`, which an AppRunner calls once, makes a LimitedServer;
- `LimitedServer.__call__`, which the loop calls for each connection;
- `LimitedRequestHandler`: the callbacks of asyncio.Protocol and `handle_error`. It
  reads `_request_count` (requests parsed so far) and `_waiter` (set while the
  connection waits for a request).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from aiohttp import http_parser, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from viva_server.api.problems import Problem, problem_response, unexpected
from viva_server.api.request import bound_buffers
from viva_server.errors import ConfigError

HEAD_SECONDS = 10.0
IDLE_SECONDS = 75.0
LINGERING_SECONDS = 2.0
SERVER_NAME = "viva-server"

logger = logging.getLogger("viva_server.access")


def refuse_without_c_parser() -> None:
    """Raise ConfigError if aiohttp runs on its pure-Python parser.

    That one lets framing errors through which the C parser refuses.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        problem = "aiohttp runs on its pure-Python parser here, which is not safe"
        raise ConfigError([f"{problem}: unset AIOHTTP_NO_EXTENSIONS or get its wheel"])


class LimitedRunner(web.AppRunner):
    """An AppRunner whose connections have limits in time; durations are seconds.

    `head_seconds` is for a request's line and headers, from the connection or, on a
    kept connection, from the first byte. `idle_seconds` is for a kept connection
    without a request, `lingering_seconds` for reading what is left of a body that was
    refused. aiohttp's own access log is off, and bodies stay as they were sent.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        head_seconds: float = HEAD_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        lingering_seconds: float = LINGERING_SECONDS,
        shutdown_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            app,
            shutdown_timeout=shutdown_timeout,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=idle_seconds,
            lingering_time=lingering_seconds,
        )
        self._head_seconds = head_seconds
        app.on_response_prepare.append(_hide_version)

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        return LimitedServer(plain, self._head_seconds)


class LimitedServer(Server):
    """A server made from aiohttp's own one, with another kind of connection."""

    def __init__(self, plain: Server, head_seconds: float) -> None:
        super().__init__(
            plain.request_handler,
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            **plain._kwargs,  # noqa: SLF001 - there is no other way to keep them
        )
        self._head_seconds = head_seconds

    def __call__(self) -> RequestHandler:
        return LimitedRequestHandler(
            self, loop=self._loop, head_seconds=self._head_seconds, **self._kwargs
        )


class LimitedRequestHandler(RequestHandler):
    """A connection that closes when a request's head does not come in time.

    A head of which a part came together with the request before it is only bounded
    by `idle_seconds` until its next byte comes; then by `head_seconds` too.
    """

    __slots__ = ("_head_seconds", "_head_timer")

    def __init__(
        self,
        manager: Server,
        *,
        loop: asyncio.AbstractEventLoop,
        head_seconds: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for the first request's head."""
        bound_buffers(transport)
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the clock with a whole head; start it with the first byte of one."""
        parsed = self._request_count
        super().data_received(data)
        if self._request_count != parsed:
            self._stop_clock()
        elif data and self._head_timer is None and self._is_waiting():
            self._start_clock()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer with a problem and close; one line for what a client did wrong.

        Raises:
            ConnectionError: a response has begun; aiohttp then drops the connection.
        """
        request_id = uuid.uuid4().hex
        self._log_error(request.remote, request_id, status, exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun")
        response = problem_response(_problem(status), request_id)
        response.headers["Server"] = SERVER_NAME
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response

    def _log_error(
        self,
        remote: str | None,
        request_id: str,
        status: int,
        exc: BaseException | None,
    ) -> None:
        if isinstance(exc, HttpProcessingError):
            # Not its text: that quotes what the client sent.
            kind = type(exc).__name__
            logger.info("- - %d %s id=%s from=%s", status, kind, request_id, remote)
        else:
            logger.error("- - %d id=%s", status, request_id, exc_info=exc)

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _start_clock(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self.force_close()


async def _hide_version(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME


def _problem(status: int) -> Problem:
    if status == 400:
        return Problem("bad_request", "This is not HTTP as RFC 9112 has it.")
    return unexpected()
