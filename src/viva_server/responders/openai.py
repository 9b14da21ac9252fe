"""A responder that asks any server with OpenAI's chat completions API."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from viva_server.errors import ConfigError, ResponderError
from viva_server.responders.persona import DEFAULT_SYSTEM_PROMPT
from viva_server.responders.protocol import Conversation, EndOfReply
from viva_server.responders.retry import backoff_seconds
from viva_server.responders.upstream import (
    CONNECTION_ERRORS,
    TransientResponderError,
    Upstream,
    check,
)

_LOGGER = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 5.0
# aiohttp pauses the socket above twice this: a fast model cannot hog the event loop.
_READ_BUFFER_BYTES: Final = 65_536
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_DESCRIPTOR_SECONDS: Final = 0.1


class OpenAIResponder:
    """Streams replies from `{base_url}/chat/completions`.

    The session belongs to the caller, who closes it after the last reply and gives it
    a connector without aiohttp's limit of 100 connections (`limit=0`). One responder
    serves any number of conversations at once. A reply has one connection, closed at
    once when the reply's generator is closed or its task is cancelled.

    Until the first text there are three attempts at most, after connection errors, 429
    and 5xx; they share `first_token_seconds`. From then on `idle_seconds` is the
    longest wait for more text; time that the caller takes does not count.

    Raises, when called:
        ResponderError: `upstream_unavailable` (no connection, 5xx),
            `upstream_rate_limited` (429), `upstream_timeout`, `upstream_refused`
            (4xx, redirect, no event stream; not retryable), `upstream_error` (the
            reply broke off), `upstream_empty`, `content_filter` (not retryable). No
            message has the API key or a word of the model's server in it.
        EndOfReply: "length", after the last delta.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        base_url: URL,
        model: str,
        api_key: str | None = None,
        system_prompt: str = DEFAULT_SYSTEM_PROMPT,
        first_token_seconds: float = 60.0,
        idle_seconds: float = 30.0,
    ) -> None:
        """Take the settings.

        Raises:
            ConfigError: the API key cannot stand in a header, or stands beside a user
                in the URL.
        """
        self._session = session
        self._url = base_url.joinpath("chat", "completions").with_query(base_url.query)
        self._model = model
        self._headers = _request_headers(base_url, api_key)
        self._system_prompt = system_prompt
        self._first_token_seconds = first_token_seconds
        self._idle_seconds = idle_seconds

    async def __call__(self, conversation: Conversation) -> AsyncGenerator[str, None]:
        """Stream the reply; a delta is all the text that one read brought."""
        try:
            stream, text = await self._first_text(self._body(conversation))
            with stream:
                while text:
                    yield text
                    text = await stream.next_text(self._idle_seconds)
                reason = stream.completion.close()
                await stream.drain()
        except ResponderError as error:
            detail = getattr(error, "detail", error.code)
            _LOGGER.warning("No whole reply, %s (%s)", error, detail)
            raise
        if reason != "stop":
            raise EndOfReply(reason)

    def _body(self, conversation: Conversation) -> bytes:
        messages = [{"role": "system", "content": self._system_prompt}]
        messages.extend(
            {"role": message.role, "content": message.content}
            for message in conversation.messages
        )
        return msgspec.json.encode(
            {"model": self._model, "messages": messages, "stream": True}
        )

    async def _first_text(self, body: bytes) -> tuple[Upstream, str]:
        deadline = asyncio.get_running_loop().time() + self._first_token_seconds
        try:
            async with asyncio.timeout_at(deadline):
                return await self._attempts(body, deadline)
        except TimeoutError:
            raise ResponderError(
                "upstream_timeout", "the model's first token came too late"
            ) from None

    async def _attempts(self, body: bytes, deadline: float) -> tuple[Upstream, str]:
        loop = asyncio.get_running_loop()
        for backoff in backoff_seconds():
            try:
                return await self._attempt(body)
            except TransientResponderError as error:
                wait = max(backoff, error.wait_seconds)
                if loop.time() + wait >= deadline:
                    raise
                _LOGGER.warning(
                    "Asking the model again in %.1f s (%s)", wait, error.detail
                )
            await asyncio.sleep(wait)
        return await self._attempt(body)

    async def _attempt(self, body: bytes) -> tuple[Upstream, str]:
        # "from None": what aiohttp says may quote the model's server.
        try:
            return await self._stream(body)
        except CONNECTION_ERRORS as error:
            raise TransientResponderError(
                "upstream_unavailable",
                "the model's server cannot be reached",
                detail=type(error).__name__,
            ) from None
        except aiohttp.ClientError:
            raise ResponderError(
                "upstream_error", "the model's server does not speak HTTP"
            ) from None

    async def _stream(self, body: bytes) -> tuple[Upstream, str]:
        response = await self._post(body)
        stream = Upstream(response)
        try:
            check(response)
            return stream, await stream.first_text()
        except BaseException:
            stream.close()
            raise

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        while True:
            try:
                return await self._send(body)
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
            # Our own limit and no fault of the model's: others end, then there is one.
            await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)

    async def _send(self, body: bytes) -> aiohttp.ClientResponse:
        return await self._session.post(
            self._url,
            data=body,
            headers=self._headers,
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=_READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        )


def _request_headers(base_url: URL, api_key: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        # Nothing is unpacked, so nothing small can become large.
        "Accept-Encoding": "identity",
    }
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError(["VIVA_MODEL_API_KEY cannot be sent in a header"])
        if base_url.user is not None:
            raise ConfigError(["VIVA_MODEL_URL has a user beside VIVA_MODEL_API_KEY"])
        headers["Authorization"] = f"Bearer {api_key}"
    return headers
