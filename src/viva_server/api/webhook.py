"""The webhook of Evolution API: judge, read, store, then answer.

The status codes are chosen by what they make Evolution do: 400 and 401 are final from
2.3.0 on, 413 and 5xx bring the same body ten times again, a redirect loses it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import Literal

import msgspec
from aiohttp import web

from viva_server.api.problems import Problem
from viva_server.api.wire import to_json
from viva_server.config import Config
from viva_server.counters import WebhookOutcome, WhatsAppCounters
from viva_server.errors import OverloadedError
from viva_server.whatsapp.events.json_values import NotJsonObjectError
from viva_server.whatsapp.events.table import label_of
from viva_server.whatsapp.ingress.delivery import WebhookRequest, WrongSecretError
from viva_server.whatsapp.ingress.heavy_bodies import (
    HeavyBodies,
    HeavyBodyError,
    TooCostlyError,
    whereabouts,
)
from viva_server.whatsapp.ingress.inbox import Accepted, Inbox, NotStoredError, Receiver
from viva_server.whatsapp.ingress.secrets import Verdict, judge_request

logger = logging.getLogger(__name__)

ANY_TAIL = "{tail:(?s:/.*)?}"
"""What the route ends in; a plain dot would answer 404 to %0A."""

MAX_BODY_BYTES = 64 * 2**20
MAX_BYTES_IN_FLIGHT = 256 * 2**20

_MAX_DRAINED_BYTES = 256 * 2**20


_OUTCOMES: dict[int, WebhookOutcome] = {
    400: "refused",
    401: "unauthorized",
    503: "unavailable",
}


class WebhookDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The webhook's URL is right."""

    status: Literal["webhook ativo"] = "webhook ativo"
    service: Literal["evolution"] = "evolution"


class WebhookStored(msgspec.Struct, frozen=True, kw_only=True):
    """The event is committed, now or by an earlier delivery (`duplicate`)."""

    status: Literal["received"] = "received"
    processed: Literal[True] = True
    event: str
    duplicate: bool


class WebhookIgnored(msgspec.Struct, frozen=True, kw_only=True):
    """The event was not stored, and must not be sent again."""

    status: Literal["received"] = "received"
    processed: Literal[False] = False
    ignored: Literal["too large"] = "too large"


class _TooLargeError(Exception):
    """The body is over a limit; the text says which, for the log."""


class WebhookHandlers:
    """What Evolution API posts.

    The inbox stays the caller's.

    Args:
        config: whose webhook secrets are asked for.
        inbox: where deliveries are stored.
        heavy_bodies: who reads heavy bodies; the caller's, who closes them.
        counters: where answers are counted.
        max_body_bytes: above, a delivery is answered 200 and ignored.
        max_bytes_in_flight: of all bodies that are not answered yet; above, 503.
        body_seconds: how long a body may take to arrive.
        answer_seconds: how long an answer waits for the commit; then 503. A large
            body has longer.
        awaited_seconds: the same for events that hold up Evolution's queue; then 200.
    """

    def __init__(
        self,
        config: Config,
        inbox: Inbox,
        heavy_bodies: HeavyBodies,
        counters: WhatsAppCounters | None = None,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT,
        body_seconds: float = 30.0,
        answer_seconds: float = 2.0,
        awaited_seconds: float = 0.5,
    ) -> None:
        self._receiver = Receiver(
            inbox,
            heavy_bodies,
            answer_seconds=answer_seconds,
            awaited_seconds=awaited_seconds,
        )
        self._counters = counters or WhatsAppCounters()
        self._secrets = config.webhook_secret
        self._is_open = config.webhook_open
        self._hidden = (*config.webhook_secret, config.evolution_api_key or "")
        self._max_body_bytes = max_body_bytes
        self._max_bytes_in_flight = max_bytes_in_flight
        self._body_seconds = body_seconds
        self._bytes_in_flight = 0

    @property
    def bytes_in_flight(self) -> int:
        """How many bytes of bodies are in memory now."""
        return self._bytes_in_flight

    async def describe(self, request: web.Request) -> web.Response:
        """Say that the webhook's URL is right."""
        return web.json_response(body=to_json(WebhookDescription()))

    async def receive(self, request: web.Request) -> web.Response:
        """Receive an event of Evolution API.

        Answered after the commit of the event, before any work on it. The secret may
        also be the body's `apikey`.

        Raises:
            Problem: 400, 401 or 503.
            ConnectionError: the client left before its body was complete.
        """
        # Cancelled after the body was read, it leaves the row to be stored; with a
        # heavy body, after it was unpacked.
        try:
            accepted = await self._accept(request)
        except NotStoredError as error:
            self._count(error.event, "unavailable")
            raise _unavailable("The event cannot be stored now.") from error
        except _TooLargeError as error:
            logger.warning("a webhook's body %s", error)
            self._count(None, "ignored")
            return await self._ignore(request)
        except Problem as problem:
            self._count(None, _OUTCOMES[problem.status])
            raise
        self._count(accepted.event, accepted.outcome)
        is_duplicate = accepted.outcome == "duplicate"
        answer = _stored_answer(accepted.event, duplicate=is_duplicate)
        return web.json_response(body=answer)

    def _count(self, event: str | None, outcome: WebhookOutcome) -> None:
        """Count an answer; None: it was given before the body was read."""
        label = "unread" if event is None else label_of(event)
        self._counters.webhooks[label, outcome] += 1

    async def _accept(self, request: web.Request) -> Accepted:
        verdict = self._judge(request)
        _refuse_coding(request)
        flight = _Flight()
        try:
            body = await self._read(request, flight)
            return await self._receive(body, self._described(request, verdict))
        finally:
            self._bytes_in_flight -= flight.size

    def _judge(self, request: web.Request) -> Verdict:
        query = request.rel_url.raw_query_string
        verdict = judge_request(self._secrets, request.headers, query)
        if verdict is Verdict.WRONG:
            raise _unauthorized(closes=True)
        return verdict

    async def _read(self, request: web.Request, flight: _Flight) -> bytes | bytearray:
        """Read the body; `client_max_size`, which answers 413, is the host's."""
        if (request.content_length or 0) > self._max_body_bytes:
            raise self._too_large()
        if request.content.at_eof():
            # A middleware of the host may have read it already.
            whole = await request.read()
            self._take_off(flight, len(whole))
            return whole
        if request.content.is_eof():  # all of it came with the head
            whole = request.content.read_nowait()
            self._take_off(flight, len(whole))
            return whole
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while chunk := await request.content.readany():
                    self._take_off(flight, len(chunk))
                    body += chunk
        except TimeoutError:
            raise _unavailable("The body came too slowly.", closes=True) from None
        return body

    def _too_large(self) -> _TooLargeError:
        return _TooLargeError(f"is over {self._max_body_bytes} bytes")

    def _take_off(self, flight: _Flight, size: int) -> None:
        if flight.size + size > self._max_body_bytes:
            raise self._too_large()
        if self._bytes_in_flight + size > self._max_bytes_in_flight:
            raise _unavailable("Too many bodies arrive at once.", closes=True)
        flight.size += size
        self._bytes_in_flight += size

    async def _receive(
        self, body: bytes | bytearray, described: WebhookRequest
    ) -> Accepted:
        try:
            return await self._receiver.receive(body, described)
        except NotStoredError:
            raise
        except WrongSecretError:
            raise _unauthorized() from None
        except NotJsonObjectError as error:
            raise Problem("invalid_json", f"{str(error).capitalize()}.") from None
        except TooCostlyError as error:
            # To send it again would only cost as much again.
            raise _TooLargeError(f"cannot be read: {error}") from None
        except OverloadedError:
            raise _unavailable("Too many large bodies are read at once.") from None
        except Exception as error:
            # Evolution keeps it for 20 minutes more; a 500 would say the same. Not
            # logged with its text, which may quote the body.
            is_ours = isinstance(error, HeavyBodyError)
            why = str(error) if is_ours else whereabouts(error)
            logger.error("a webhook's body cannot be read: %s", why)
            raise _unavailable("The event cannot be read now.") from None

    def _described(self, request: web.Request, verdict: Verdict) -> WebhookRequest:
        return WebhookRequest(
            tail=request.match_info.get("tail", ""),
            query=request.rel_url.raw_query_string,
            headers=request.headers,
            trusted=bool(self._secrets) or self._is_open,
            asked=self._secrets if verdict is Verdict.NONE else (),
            hidden=self._hidden,
        )

    async def _ignore(self, request: web.Request) -> web.Response:
        """Let the rest pass by, then answer 200: every version stops at that."""
        left = _MAX_DRAINED_BYTES
        try:
            async with asyncio.timeout(self._body_seconds):
                while left > 0 and (chunk := await request.content.readany()):
                    left -= len(chunk)
        except TimeoutError:
            left = 0
        response = web.json_response(body=to_json(WebhookIgnored()))
        if left <= 0:
            response.force_close()
        return response


@lru_cache(maxsize=256)
def _stored_answer(event: str, *, duplicate: bool) -> bytes:
    return to_json(WebhookStored(event=event, duplicate=duplicate))


class _Flight:
    """How many bytes of one body are in memory."""

    size = 0


def _refuse_coding(request: web.Request) -> None:
    if "Content-Encoding" not in request.headers:
        return
    # No version compresses; what such a body unpacks to is unknown.
    codings = request.headers.getall("Content-Encoding")
    if any(coding.strip().lower() not in {"", "identity"} for coding in codings):
        detail = "A body must not be compressed."
        raise Problem("content_encoding", detail, closes=True)


def _unauthorized(*, closes: bool = False) -> Problem:
    headers = {"WWW-Authenticate": "Bearer"}
    detail = "The webhook's secret is missing or wrong."
    return Problem("wrong_secret", detail, headers=headers, closes=closes)


def _unavailable(detail: str, *, closes: bool = False) -> Problem:
    headers = {"Retry-After": "5"}
    return Problem("unavailable", detail, headers=headers, closes=closes)
