"""A responder that asks any server with OpenAI's chat completions API."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, Final, Self

import aiohttp
import msgspec
from yarl import URL

from viva_server.config import Config, SystemRole
from viva_server.errors import ConfigError, RefusedError, ResponderError
from viva_server.responders.completion import (
    QUOTA,
    Completion,
    parse_json,
    reason_of,
)
from viva_server.responders.persona import DEFAULT_SYSTEM_PROMPT
from viva_server.responders.protocol import Conversation, EndOfReply
from viva_server.responders.retry import backoff_seconds, wait_seconds
from viva_server.responders.stream import (
    CONNECTION_ERRORS,
    END_SECONDS,
    Stream,
    TransientResponderError,
)

_LOGGER = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 5.0
# aiohttp pauses the socket above twice this: a fast model cannot hog the event loop.
_READ_BUFFER_BYTES: Final = 65_536
# Gateways put policies and routes into header fields; aiohttp's 8 KiB and 128 are few.
_MAX_FIELD_BYTES: Final = 2**16 + 2**10
_MAX_FIELDS: Final = 512
_MAX_REDIRECTS: Final = 5
_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_REASON_BYTES: Final = 65_536
_REASON_SECONDS: Final = 2.0
_REASON_CHARS: Final = 200
# Keys as their makers write them, and whatever is too long for a word.
_SECRET: Final = re.compile(
    r"(?i)\b(?:sk|pk|key|bearer)[-_ ][^\s\"',]{4,}|[\w*.+/=-]{32,}"
)
_LEAST_QUOTED_CHARS: Final = 8
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_DESCRIPTOR_SECONDS: Final = 0.1


def model_session() -> aiohttp.ClientSession:
    """Make the session that an `OpenAIResponder` needs; the caller closes it."""
    return aiohttp.ClientSession(
        # aiohttp's default of 100 connections would queue the 101st reply.
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        max_line_size=_MAX_FIELD_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
        max_headers=_MAX_FIELDS,
    )


class OpenAIResponder:
    """Streams replies from `{base_url}/chat/completions`.

    The session belongs to the caller, who closes it after the last reply
    (`model_session`). One responder serves any number of conversations at once. A reply
    has one connection, closed at once when the reply's generator is closed or its task
    is cancelled.

    Until the first text there are three attempts at most, after connection errors, 408,
    409, 425, 429 and 5xx. All of them have to show a sign of life within
    `first_token_seconds`; data of any kind is one and begins that time anew. From the
    first text on `idle_seconds` is the longest silence; time that the caller takes does
    not count. Behind a finish reason the end is waited for `end_seconds`.

    Args:
        params: more members of the request's body.
        headers: more fields of the request; their values are secrets.
        system_prompt: a text, or what makes it for a conversation.
        system_role: "user": the prompt stands before the first user's message, in it.
        starts_thinking: a reply begins inside `<think>` without the tag.
        on_end: called with what was read, after each attempt whose body was read.

    Raises, when called:
        ResponderError: `upstream_unavailable` (no connection, 5xx),
            `upstream_rate_limited` (429), `upstream_timeout`, `upstream_refused`
            (4xx, another redirect, a page; not retryable), `insufficient_quota` (not
            retryable), `upstream_error` (the reply broke off), `upstream_empty`. Its
            message has no word of the model's server in it; `detail` has the
            server's reason, shortened and without secrets.
        EndOfReply: after the last delta, where there is more to say than "stop".
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        base_url: URL,
        model: str,
        api_key: str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        system_prompt: str | Callable[[Conversation], str] = DEFAULT_SYSTEM_PROMPT,
        system_role: SystemRole = "system",
        starts_thinking: bool = False,
        first_token_seconds: float = 60.0,
        idle_seconds: float = 30.0,
        end_seconds: float = END_SECONDS,
        on_end: Callable[[Completion], None] | None = None,
    ) -> None:
        """Take the settings.

        Raises:
            ConfigError: the API key cannot stand in a header, or stands beside a user
                in the URL.
        """
        self._session = session
        self._url = base_url.joinpath("chat", "completions").with_query(base_url.query)
        self._model = model
        self._params = dict(params or {})
        self._headers = _request_headers(base_url, api_key, headers or {})
        given = (api_key, base_url.user, base_url.password, *(headers or {}).values())
        self._secrets = tuple(secret for secret in given if secret)
        self._system_prompt = system_prompt
        self._system_role = system_role
        self._starts_thinking = starts_thinking
        self._first_token_seconds = first_token_seconds
        self._idle_seconds = idle_seconds
        self._end_seconds = end_seconds
        self._on_end = on_end or (lambda _: None)

    @classmethod
    def of(
        cls,
        config: Config,
        session: aiohttp.ClientSession,
        *,
        system_prompt: str | Callable[[Conversation], str] = DEFAULT_SYSTEM_PROMPT,
        on_end: Callable[[Completion], None] | None = None,
    ) -> Self:
        """Make the responder of the settings, which name a model.

        Raises:
            ConfigError: as the constructor.
        """
        assert config.model_url is not None, "asked before"
        assert config.model_name is not None, "checked by Config"
        return cls(
            session,
            base_url=config.model_url,
            model=config.model_name,
            api_key=config.model_api_key,
            params=config.model_params,
            headers=config.model_headers,
            system_prompt=system_prompt,
            system_role=config.model_system_role,
            starts_thinking=config.model_starts_thinking,
            first_token_seconds=config.model_first_token_seconds,
            idle_seconds=config.model_idle_seconds,
            on_end=on_end,
        )

    async def __call__(self, conversation: Conversation) -> AsyncGenerator[str, None]:
        """Stream the reply; a delta is all the text that one read brought."""
        try:
            stream, text = await self._first_text(self._body(conversation))
            with stream:
                while text:
                    yield text
                    text = await stream.next_text(self._idle_seconds)
                self._on_end(stream.completion)
                reason = stream.completion.close()
                usage = stream.completion.usage
                await stream.drain()
        except ResponderError as error:
            hidden = (message.content for message in conversation.messages)
            error.detail = self._redacted(error.detail, hidden)
            told = f": {error.detail}" if error.detail else ""
            _LOGGER.warning("No whole reply, %s, %s%s", error.code, error, told)
            raise
        if reason != "stop" or usage is not None:
            raise EndOfReply(reason, usage=usage)

    def _body(self, conversation: Conversation) -> bytes:
        prompt = self._system_prompt
        if not isinstance(prompt, str):
            prompt = prompt(conversation)
        messages = [
            {"role": message.role, "content": message.content}
            for message in conversation.messages
        ]
        if self._system_role != "user":
            messages.insert(0, {"role": self._system_role, "content": prompt})
        elif users := [each for each in messages if each["role"] == "user"]:
            users[0]["content"] = f"{prompt}\n\n{users[0]['content']}"
        own = {"model": self._model, "messages": messages, "stream": True}
        return msgspec.json.encode({**self._params, **own})

    async def _first_text(self, body: bytes) -> tuple[Stream, str]:
        """Make attempts until there is text, or an end that no attempt can change."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._first_token_seconds
        for backoff in backoff_seconds():
            try:
                return await self._attempt(body, deadline)
            except TransientResponderError as error:
                wait = max(backoff, error.wait_seconds)
                if loop.time() + wait >= deadline:
                    raise
                reason = self._redacted(error.detail, ())
                _LOGGER.warning("Asking the model again in %.1f s (%s)", wait, reason)
            await asyncio.sleep(wait)
        return await self._attempt(body, deadline)

    async def _attempt(self, body: bytes, deadline: float) -> tuple[Stream, str]:
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._answer(body)
        except TimeoutError:
            raise ResponderError(
                "upstream_timeout", "the model's first token came too late"
            ) from None
        return await self._read(response, deadline)

    async def _answer(self, body: bytes) -> aiohttp.ClientResponse:
        # "from None": what aiohttp says may quote the model's server.
        try:
            return await self._post(body)
        except CONNECTION_ERRORS as error:
            raise TransientResponderError(
                "upstream_unavailable",
                "the model's server cannot be reached",
                detail=type(error).__name__,
            ) from None
        except aiohttp.ClientError as error:
            raise ResponderError(
                "upstream_error",
                "the model's server does not speak HTTP",
                detail=type(error).__name__,
            ) from None

    async def _read(
        self, response: aiohttp.ClientResponse, deadline: float
    ) -> tuple[Stream, str]:
        completion = Completion(starts_thinking=self._starts_thinking)
        try:
            stream = Stream(response, completion, end_seconds=self._end_seconds)
        except ResponderError:
            response.close()
            raise
        try:
            if response.status // 100 != 2 or response.status in {204, 205}:
                await _refuse(response, stream)
            at_first = deadline - asyncio.get_running_loop().time()
            text = await stream.next_text(self._first_token_seconds, at_first=at_first)
            if not text and completion.is_cut:
                self._on_end(completion)
                completion.close()
        except BaseException:
            stream.close()
            raise
        return stream, text

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """Ask, and go where the server sends the request within its own origin."""
        url = self._url
        for _ in range(_MAX_REDIRECTS):
            response = await self._send(url, body)
            target = _redirect(url, response)
            if target is None:
                break
            response.close()
            url = target
        return response

    async def _send(self, url: URL, body: bytes) -> aiohttp.ClientResponse:
        while True:
            try:
                return await self._session.post(
                    url,
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,
                    auto_decompress=False,
                    raise_for_status=False,
                    read_bufsize=_READ_BUFFER_BYTES,
                    timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
                )
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
            # Our own limit and no fault of the model's: others end, then there is one.
            await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)

    def _redacted(self, reason: str, hidden: Iterable[str]) -> str:
        """Shorten what the server says, without secrets and people's words."""
        for word in (*self._secrets, *hidden):
            if len(word) >= _LEAST_QUOTED_CHARS or word in self._secrets:
                reason = reason.replace(word, "…")
        reason = " ".join(_SECRET.sub("…", reason).split())
        reason = "".join(char for char in reason if char.isprintable())
        if len(reason) > _REASON_CHARS:
            reason = reason[:_REASON_CHARS].rstrip() + "…"
        return reason


async def _refuse(response: aiohttp.ClientResponse, stream: Stream) -> None:
    """Raise the error that a refusal is, with the reason that its body tells."""
    status = response.status
    body = await stream.start_of_body(_REASON_BYTES, _REASON_SECONDS)
    text = body.decode("utf-8", "replace")
    told, is_quota = reason_of(parse_json(text))
    if not told and not text.lstrip().startswith("<"):
        told = text
    detail = f"HTTP {status} {told}".strip()
    if is_quota:
        raise ResponderError(
            QUOTA, "the model's quota is used up", retryable=False, detail=detail
        )
    if status in _TRANSIENT or status >= 500:
        raise TransientResponderError(
            "upstream_rate_limited" if status == 429 else "upstream_unavailable",
            "the model's server is busy or broken",
            detail=detail,
            wait_seconds=wait_seconds(response.headers),
        )
    raise RefusedError(status, told)


def _redirect(url: URL, response: aiohttp.ClientResponse) -> URL | None:
    """Say where a redirect that keeps the method leads, if it stays in the origin."""
    location = response.headers.get("Location")
    if response.status not in {307, 308} or not location:
        return None
    try:
        target = url.join(URL(location))
        is_same = target.origin() == url.origin()
    except ValueError:
        return None
    return target.with_user(url.user).with_password(url.password) if is_same else None


def _request_headers(
    base_url: URL, api_key: str | None, more: Mapping[str, str]
) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        # Packed tokens come late; what is packed all the same is unpacked.
        "Accept-Encoding": "identity",
    }
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError(["VIVA_MODEL_API_KEY cannot be sent in a header"])
        if base_url.user is not None:
            raise ConfigError(["VIVA_MODEL_URL has a user beside VIVA_MODEL_API_KEY"])
        headers["Authorization"] = f"Bearer {api_key}"
    return {**headers, **more}
