"""Limits in time and descriptors that aiohttp's server lacks; for `serve`.

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
import os
import resource
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, cast

from aiohttp import http_parser, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from viva_server.api.edge import problem_response
from viva_server.api.problems import (
    Problem,
    unavailable,
    unexpected,
)
from viva_server.api.request import bound_buffers
from viva_server.errors import ConfigError

HEAD_SECONDS = 10.0
IDLE_SECONDS = 75.0
LINGERING_SECONDS = 2.0
SERVER_NAME = "viva-server"

LAST_DESCRIPTORS = 64
"""With no more than these left only /health and /ready are answered.

The rest are for what has been taken: a model's connection for each reply, the pool's.
"""

PAUSE_DESCRIPTORS = 16
"""With no more than these left nothing is accepted; clients wait in the backlog."""

_LAST_HEAD_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_PAUSE_SECONDS = 0.1
_ACCEPTED_AT_ONCE = 32
_OPERATIONAL = frozenset({"health", "ready"})

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
        self.descriptors = Descriptors()
        app.on_response_prepare.append(_hide_version)
        app.middlewares.append(self._sparing_descriptors())

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        return LimitedServer(plain, self._head_seconds)

    def _sparing_descriptors(self) -> Any:
        descriptors = self.descriptors

        @web.middleware
        async def spare_descriptors(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            if descriptors.free() > LAST_DESCRIPTORS:
                return await handler(request)
            resource = request.match_info.route.resource
            name = "" if resource is None else resource.canonical.rpartition("/")[2]
            if name not in _OPERATIONAL:
                raise unavailable("Too many connections are open.", closes=True)
            response = await handler(request)
            response.force_close()
            return response

        return spare_descriptors


class Descriptors:
    """How many descriptors the process may still open, counted when it matters."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = sys.maxsize if soft == resource.RLIM_INFINITY else soft
        self._free = 0
        self._taken = 0
        self._counted_at = float("-inf")

    def free(self) -> int:
        """Give how many are left, as of some tenths of a second ago at most."""
        # A count costs a microsecond for each that is open.
        is_old = monotonic() - self._counted_at > min(1.0, 0.1 + self._free / 10_000)
        if is_old or self._taken > self._free // 8:
            self._counted_at = monotonic()
            self._taken = 0
            try:
                self._free = self._limit - len(os.listdir("/dev/fd"))  # noqa: PTH208
            except OSError:
                self._free = 0  # not even one, to look
        return self._free - self._taken

    def forget(self) -> None:
        """Count anew at the next question."""
        self._counted_at = float("-inf")

    def take(self) -> None:
        """Note that one was opened."""
        self._taken += 1


class LimitedSite(web.BaseSite):
    """Listens at a host and port, and accepts only while there are descriptors."""

    def __init__(
        self, runner: LimitedRunner, host: str, port: int, *, backlog: int
    ) -> None:
        super().__init__(runner, backlog=backlog)
        self._descriptors = runner.descriptors
        self._address = (host, port)

    @property
    def name(self) -> str:
        host, port = self._address
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen on all addresses of the host.

        Raises:
            OSError: one of them cannot be listened on.
        """
        await super().start()
        assert isinstance(self._runner.server, LimitedServer), "of a LimitedRunner"
        found = await asyncio.get_running_loop().getaddrinfo(
            *self._address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listeners: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listeners.append(
                    socket.create_server(address, family=family, backlog=self._backlog)
                )
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        acceptor = _Acceptor(self._runner.server, listeners, self._descriptors)
        # All that the runner uses of it is here.
        self._server = cast("asyncio.AbstractServer", acceptor)


class _Acceptor:
    """Accepts connections: asyncio's own does it until no descriptor is left."""

    def __init__(
        self,
        server: LimitedServer,
        listeners: Sequence[socket.socket],
        descriptors: Descriptors,
    ) -> None:
        self.sockets = tuple(listeners)
        self._limited = server
        self._descriptors = descriptors
        self._loop = asyncio.get_running_loop()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._starting: set[asyncio.Task[None]] = set()
        for listener in listeners:
            listener.setblocking(False)
            self._resume(listener)

    def close(self) -> None:
        """Accept nothing more."""
        for pause in self._pauses.values():
            pause.cancel()
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()

    def _resume(self, listener: socket.socket) -> None:
        self._pauses.pop(listener, None)
        self._loop.add_reader(listener, self._accept, listener)

    def _pause(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(
            _PAUSE_SECONDS, self._resume, listener
        )

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            free = self._descriptors.free()
            if free <= LAST_DESCRIPTORS + _ACCEPTED_AT_ONCE:
                closed = self._limited.close_idle(_ACCEPTED_AT_ONCE)
                if closed and free <= LAST_DESCRIPTORS:
                    # They are closed when the loop comes round; so is this called.
                    self._descriptors.forget()
                    return
            if free <= PAUSE_DESCRIPTORS:
                self._pause(listener)
                return
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause(listener)
                return
            self._descriptors.take()
            starting = self._start(accepted, is_last=free <= LAST_DESCRIPTORS)
            task = self._loop.create_task(starting)
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, accepted: socket.socket, *, is_last: bool) -> None:
        accepted.setblocking(False)
        head_seconds = _LAST_HEAD_SECONDS if is_last else None

        def protocol() -> RequestHandler:
            return self._limited.connection(head_seconds)

        try:
            await self._loop.connect_accepted_socket(protocol, accepted)
        except OSError:
            accepted.close()  # the client has gone


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
        return self.connection()

    def connection(self, head_seconds: float | None = None) -> RequestHandler:
        """Make the protocol of one connection."""
        seconds = self._head_seconds
        if head_seconds is not None:
            seconds = min(seconds, head_seconds)
        return LimitedRequestHandler(
            self, loop=self._loop, head_seconds=seconds, **self._kwargs
        )

    def close_idle(self, count: int) -> int:
        """Close kept connections without a request, those that came first."""
        idle = [
            connection
            for connection in self.connections
            if isinstance(connection, LimitedRequestHandler) and connection.is_kept
        ]
        for connection in idle[:count]:
            connection.force_close()
        return min(count, len(idle))


class LimitedRequestHandler(RequestHandler):
    """A connection that closes when a request's head does not come in time.

    A head of which a part came together with the request before it is only bounded
    by `idle_seconds` until its next byte comes; then by `head_seconds` too.
    """

    __slots__ = ("_has_looked", "_head_seconds", "_head_timer")

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
        self._has_looked = False

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

    @property
    def is_kept(self) -> bool:
        """Whether it has answered a request and waits for another."""
        return self._request_count > 0 and self._is_waiting()

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _start_clock(self) -> None:
        self._has_looked = False
        self._head_timer = self._loop.call_later(self._head_seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        # uvloop runs what is due before it reads: a loop that was busy for long finds
        # the time over and the head waiting in the socket.
        if not self._has_looked:
            self._has_looked = True
            self._head_timer = self._loop.call_later(_LOOK_SECONDS, self._give_up)
            return
        self._head_timer = None
        self.force_close()


async def _hide_version(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME


def _problem(status: int) -> Problem:
    if status == 400:
        return Problem("bad_request", "This is not HTTP as RFC 9112 has it.")
    return unexpected()
