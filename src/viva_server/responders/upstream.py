"""One streamed response of a model's server: what it may be, and reading it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final, Self

import aiohttp

from viva_server.errors import RefusedError, ResponderError
from viva_server.responders.completions import Completion
from viva_server.responders.retry import retry_after_seconds

CONNECTION_ERRORS: Final = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    OSError,
)

# What follows the finish reason (usage, [DONE]) is worth this wait and no more.
_TAIL_SECONDS: Final = 1.0
# The chunk that ends the body: worth a short wait, since it saves the next handshake.
_DRAIN_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 1.0


class TransientResponderError(ResponderError):
    """Another attempt may succeed, as long as nobody has seen any text.

    `detail` is for the log: a status or the name of an exception's class, never a text
    of the model's server.
    """

    def __init__(
        self, code: str, message: str, *, detail: str, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(code, message)
        self.detail = detail
        self.wait_seconds = wait_seconds


def check(response: aiohttp.ClientResponse) -> None:
    """Raise ResponderError unless the response is an uncompressed event stream."""
    status = response.status
    if status == 429 or status >= 500:
        raise TransientResponderError(
            "upstream_rate_limited" if status == 429 else "upstream_unavailable",
            "the model's server is busy or broken",
            detail=f"HTTP {status}",
            wait_seconds=retry_after_seconds(response.headers.get("Retry-After")),
        )
    if status != 200:
        raise RefusedError(status)
    if response.content_type != "text/event-stream":
        raise _refused("the model's server answered without an event stream")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _refused("the model's server answered with a compressed stream")


def _refused(message: str) -> ResponderError:
    return ResponderError("upstream_refused", message, retryable=False)


class Upstream:
    """Reads the text of one response, which it owns and closes (`with`)."""

    __slots__ = ("_content", "_response", "_watch", "completion")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self._watch = _Watch(response)
        self.completion = Completion()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection now, unless the response has been read to its end."""
        self._watch.cancel()
        self._response.close()

    async def first_text(self) -> str:
        """Return the first text; the caller limits the time.

        "" when the stream ended without any; the completion's `close` says why.

        Raises:
            TransientResponderError: the stream was cut.
        """
        completion = self.completion
        self._watch.start(math.inf)
        while not completion.has_ended and (chunk := await self._content.readany()):
            if text := completion.feed(chunk):
                self._watch.pause()
                return text
        if completion.is_cut():
            raise TransientResponderError(
                "upstream_error", "the model's stream was cut", detail="EOF"
            )
        return ""

    async def next_text(self, idle_seconds: float) -> str:
        """Return the text that comes next, all that has arrived; "" at the end.

        Raises:
            ResponderError: `upstream_timeout`, `upstream_error`.
        """
        completion = self.completion
        if completion.has_ended:
            return ""
        self._watch.start(idle_seconds)
        try:
            while True:
                if completion.finish_reason is not None:
                    self._watch.shorten(_TAIL_SECONDS)
                if not (chunk := await self._content.readany()):
                    return ""
                if (text := completion.feed(chunk)) or completion.has_ended:
                    return text
        except (*CONNECTION_ERRORS, aiohttp.ClientError):
            if completion.finish_reason is not None:
                return ""  # only the tail is missing
            raise self._broken() from None
        finally:
            self._watch.pause()

    async def drain(self) -> None:
        """Read the end of the body, so that the connection can be used again."""
        if self._content.at_eof():
            return
        self._watch.start(_DRAIN_SECONDS)
        with contextlib.suppress(*CONNECTION_ERRORS, aiohttp.ClientError):
            while await self._content.readany():
                pass

    def _broken(self) -> ResponderError:
        if self._watch.has_expired:
            return ResponderError("upstream_timeout", "the model fell silent")
        return ResponderError("upstream_error", "the model's connection broke")


class _Watch:
    """Ends a read by closing the response: after a while, or when its peer is gone.

    The second is aiohttp's: after a malformed chunk it closes the socket and tells the
    reader nothing (3.14.5, `test_u14_a_malformed_chunk_keeps_the_text_before_it`).
    Starting anew for every token costs no new timer handle, unlike asyncio.timeout.
    """

    __slots__ = (
        "_deadline",
        "_handle",
        "_is_reading",
        "_looks_at",
        "_loop",
        "_response",
        "has_expired",
    )

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._deadline = math.inf
        self._is_reading = False
        self._handle: asyncio.TimerHandle | None = None
        self._looks_at = math.inf
        self.has_expired = False

    def start(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        self._is_reading = True
        # A handle that comes before the deadline schedules itself again.
        if self._deadline < self._looks_at or self._handle is None:
            self._schedule()

    def shorten(self, seconds: float) -> None:
        """Bring the end of this read nearer, never further away."""
        self.start(min(seconds, self._deadline - self._loop.time()))

    def pause(self) -> None:
        self._is_reading = False

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        self.cancel()
        self._looks_at = min(self._deadline, self._loop.time() + _LOOK_SECONDS)
        self._handle = self._loop.call_at(self._looks_at, self._look)

    def _look(self) -> None:
        self._handle = None
        if self._is_reading:
            self.has_expired = self._loop.time() >= self._deadline
            if self.has_expired or self._peer_is_gone():
                self._response.close()
                return
        else:
            self._deadline = math.inf
        self._schedule()

    def _peer_is_gone(self) -> bool:
        # aiohttp takes the connection away from a response that was read to its end.
        connection = self._response.connection
        if connection is None:
            return False
        return connection.transport is None or connection.transport.is_closing()
