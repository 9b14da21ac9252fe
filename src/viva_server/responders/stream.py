"""One streamed response of a model's server: reading it within its time limits."""

from __future__ import annotations

import asyncio
import contextlib
import math
import zlib
from typing import Final, Self

import aiohttp

from viva_server.errors import ResponderError
from viva_server.responders.completion import Completion

CONNECTION_ERRORS: Final = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    OSError,
)

END_SECONDS: Final = 5.0
"""How long to wait for `[DONE]` behind a finish reason, or for more text."""

# The chunk that ends the body: worth a short wait, since it saves the next handshake.
_DRAIN_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 1.0
_PIECE_BYTES: Final = 65_536
# Tokens, each flushed, pack 10 to 60 times; what packs better and is long is a bomb.
_MOST_RATIO: Final = 200
_FREE_BYTES: Final = 16 * 2**20
_CODINGS: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# Of IANA's registry, what Python's own library cannot unpack. Other words mean nothing:
# servers write "none", "utf-8" and "".
_UNKNOWN_CODINGS: Final = frozenset(
    {"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip"}
)


class TransientResponderError(ResponderError):
    """Another attempt may succeed, as long as nobody has seen any text."""

    def __init__(
        self, code: str, message: str, *, detail: str, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.wait_seconds = wait_seconds


class Stream:
    """Reads the text of one response, which it owns and closes (`with`).

    Raises:
        ResponderError: `upstream_refused`, of a compression that cannot be unpacked.
    """

    __slots__ = (
        "_content",
        "_end_at",
        "_end_seconds",
        "_read",
        "_response",
        "_watch",
        "completion",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        completion: Completion,
        *,
        end_seconds: float = END_SECONDS,
    ) -> None:
        self._response = response
        self._content = response.content
        self._watch = _Watch(response)
        self._end_seconds = end_seconds
        self._end_at: float | None = None
        self.completion = completion
        self._read = self._content.readany
        if (coding := _coding_of(response)) is not None:
            self._read = _Unpacker(self._content, coding).read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection now, unless the response has been read to its end."""
        self._watch.cancel()
        self._response.close()

    async def next_text(
        self, silence_seconds: float, *, at_first: float | None = None
    ) -> str:
        """Return the text that comes next, all that has arrived; "" at the end.

        Anything that comes is a sign of life and begins the silence anew, except
        behind a finish reason. `at_first` is the limit until there is one. The
        completion's `close` says what the end was.
        """
        completion = self.completion
        if completion.has_ended:
            return ""
        seconds = silence_seconds if at_first is None else at_first
        try:
            while True:
                self._watch.start(
                    self._rest_seconds() if completion.is_settling else seconds
                )
                if not (chunk := await self._read()):
                    return completion.end(self._cut("EOF"))
                if (text := completion.feed(chunk)) or completion.has_ended:
                    return text
                seconds = silence_seconds
        except (*CONNECTION_ERRORS, aiohttp.ClientError) as error:
            return completion.end(self._cut(type(error).__name__))
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

    async def start_of_body(self, size: int, seconds: float) -> bytes:
        """Return what comes of a refusal's body in a short time."""
        body = b""
        with contextlib.suppress(*CONNECTION_ERRORS, aiohttp.ClientError):
            async with asyncio.timeout(seconds):
                while len(body) < size and (chunk := await self._read()):
                    body += chunk
        return body[:size]

    def _rest_seconds(self) -> float:
        """What is left of the time behind the finish reason."""
        now = asyncio.get_running_loop().time()
        if self._end_at is None:
            self._end_at = now + self._end_seconds
        return self._end_at - now

    def _cut(self, detail: str) -> ResponderError:
        if self._watch.has_expired:
            return ResponderError("upstream_timeout", "the model fell silent")
        return TransientResponderError(
            "upstream_error", "the model's stream was cut", detail=detail
        )


def _coding_of(response: aiohttp.ClientResponse) -> str | None:
    """Say how the body is packed: "gzip", "deflate" or None.

    Raises:
        ResponderError: `upstream_refused`, in another way, or twice.
    """
    words = ",".join(response.headers.getall("Content-Encoding", ())).lower().split(",")
    known = [word for each in words if (word := each.strip()) in _CODINGS]
    unknown = [word for each in words if (word := each.strip()) in _UNKNOWN_CODINGS]
    if unknown or len(known) > 1:
        raise ResponderError(
            "upstream_refused",
            "the model's server packs its answer in a way that cannot be unpacked",
            retryable=False,
            detail=f"Content-Encoding: {', '.join(known + unknown)}",
        )
    return _CODINGS[known[0]] if known else None


class _Unpacker:
    """Unpacks a body in pieces, so that nothing small becomes large."""

    def __init__(self, content: aiohttp.StreamReader, coding: str) -> None:
        self._content = content
        self._coding = coding
        self._packed = b""
        self._taken = self._given = 0  # bytes
        self._inflate: zlib._Decompress | None = None
        self._is_plain = False

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end.

        Raises:
            aiohttp.ClientPayloadError: the body is broken.
        """
        if self._packed:
            await asyncio.sleep(0)  # nothing else does while one read is unpacked
        while True:
            if not self._packed and not (await self._fill()):
                return b"" if self._inflate is None else self._inflate.flush()
            if self._is_plain:
                piece, self._packed = self._packed, b""
                return piece
            if piece := self._piece():
                return piece

    async def _fill(self) -> bool:
        self._packed = await self._content.readany()
        self._taken += len(self._packed)
        if self._packed and self._inflate is None and not self._is_plain:
            self._begin(self._packed[0])
        return bool(self._packed)

    def _begin(self, first: int) -> None:
        if self._coding == "gzip":
            # No text begins with this byte: without it the body is not packed at all.
            self._is_plain = first != 0x1F
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            # Many send the bare stream of RFC 1951 instead of RFC 1950's.
            is_zlib = first & 0xF == 8
            bits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
            self._inflate = zlib.decompressobj(bits)

    def _piece(self) -> bytes:
        assert self._inflate is not None, "begun with the first byte"
        try:
            piece = self._inflate.decompress(self._packed, _PIECE_BYTES)
        except zlib.error:
            raise aiohttp.ClientPayloadError("the body cannot be unpacked") from None
        self._given += len(piece)
        if self._given > max(_FREE_BYTES, self._taken * _MOST_RATIO):
            raise aiohttp.ClientPayloadError("the body is packed too well")
        self._packed = self._inflate.unconsumed_tail
        if self._inflate.eof:
            # gzip: another member may follow; deflate: what follows is nothing.
            behind = self._inflate.unused_data if self._coding == "gzip" else b""
            self._packed = behind if behind.startswith(b"\x1f") else b""
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return piece


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
