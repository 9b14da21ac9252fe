"""One request to Evolution API: bounded in time and size, its answer never trusted."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from viva_server.errors import ConfigError, EvolutionError
from viva_server.responders.retry import retry_after_seconds
from viva_server.whatsapp.events.json_values import NotJsonObjectError, decode_value

MAX_ANSWER_BYTES: Final = 256 * 2**10

_CONNECT_SECONDS: Final = 5.0
_MAX_RETRY_AFTER_SECONDS: Final = 3600.0
# Above, decoding would hold the event loop for longer than a token may wait.
_OFF_LOOP_BYTES: Final = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is the decoded JSON, None when it is none or too large.

    `retry_after` is in seconds, None without such a header.
    """

    status: int
    body: object = None
    retry_after: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300


class _Attempt:
    """Whether a byte of the request can have left this process."""

    is_written = False


async def _note_write(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: object
) -> None:
    # aiohttp calls it before it writes the head of a request (http_writer.py, 3.14.5).
    context.trace_request_ctx.is_written = True


class EvolutionRest:
    """Sends requests with the API key; owns one aiohttp session, made when needed.

    Raises, when made:
        ConfigError: the URL or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str) -> None:
        try:
            self._base = URL(url)
        except ValueError:
            raise ConfigError(["VIVA_EVOLUTION_URL is not a URL"]) from None
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError(["VIVA_EVOLUTION_API_KEY cannot be sent in a header"])
        self._headers = {
            "apikey": api_key,
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Nothing is unpacked, so nothing small can become large.
            "Accept-Encoding": "identity",
        }
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the session. Idempotent; a later request makes a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: tuple[str, ...],
        body: object = None,
        *,
        seconds: float,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Send a request once and return its answer, whatever its status.

        A body that breaks off or is above `max_bytes` leaves the status. A caller that
        is cancelled does not know whether the request was carried out.

        Raises:
            EvolutionError: `no_connection` before a byte was written; `timeout` or
                `connection_lost` after it, with `outcome_unknown`; `bad_path`.
        """
        url = self._url(path)
        attempt = _Attempt()
        status, after, raw = 0, None, None
        try:
            async with asyncio.timeout(seconds):
                async with self._request(method, url, body, attempt) as response:
                    status, after = response.status, _retry_after(response)
                    raw = await _read(response, max_bytes)
        except (aiohttp.ClientError, OSError) as error:
            if not status:
                raise _failure(error, attempt) from None
        return Answer(status, await _decode(raw), after)

    def _request(
        self, method: str, url: URL, body: object, attempt: _Attempt
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open_session().request(
            method,
            url,
            data=None if body is None else msgspec.json.encode(body),
            headers=self._headers,
            allow_redirects=False,
            raise_for_status=False,
            trace_request_ctx=attempt,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_write)
            self._session = aiohttp.ClientSession(
                # A kept connection that the other side has just closed would make the
                # outcome of a send unknown.
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trace_configs=[trace],
            )
        return self._session

    def _url(self, path: tuple[str, ...]) -> URL:
        # An instance's name comes from a webhook; dots would lead to another route.
        if any(word in {"", ".", ".."} for word in path):
            raise EvolutionError("bad_path")
        words = (quote(word, safe="") for word in path)
        return self._base.joinpath(*words, encoded=True)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    codings = response.headers.get("Content-Encoding", "identity")
    if codings.lower() != "identity":
        return None
    raw = bytearray()
    while chunk := await response.content.readany():
        raw += chunk
        if len(raw) > max_bytes:
            return None
    return bytes(raw)


async def _decode(raw: bytes | None) -> Any:
    if not raw:
        return None
    try:
        if len(raw) <= _OFF_LOOP_BYTES:
            return decode_value(raw)
        return await asyncio.to_thread(decode_value, raw)
    except NotJsonObjectError:
        return None


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    return retry_after_seconds(value, at_most=_MAX_RETRY_AFTER_SECONDS)


def _failure(error: Exception, attempt: _Attempt) -> EvolutionError:
    # Never the error's own text: it may quote the URL.
    if not attempt.is_written:
        return EvolutionError("no_connection")
    is_timeout = isinstance(error, TimeoutError)
    reason = "timeout" if is_timeout else "connection_lost"
    return EvolutionError(reason, outcome_unknown=True)
