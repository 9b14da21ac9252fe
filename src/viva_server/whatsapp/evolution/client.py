"""The way to Evolution API's REST interface: 1.x, 2.x and evolution-go.

One request is bounded in time and size, and its answer never trusted. Evolution has no
idempotency key before 2.4, and a request that timed out was often carried out (#1874,
#1735): only what surely did nothing may be sent again.

How an instance wants to be asked is found out by asking: Evolution checks a body before
it does anything, and a route that does not exist does nothing. `GET /` would tell the
version too, but not before 1.8, and it waits for WhatsApp's own servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from viva_server.counters import SendKind
from viva_server.errors import ConfigError, EvolutionError
from viva_server.responders.retry import retry_after_seconds
from viva_server.whatsapp.events.json_values import (
    NotJsonObjectError,
    as_int,
    as_list,
    as_object,
    as_objects,
    clean_text,
    decode_value,
    pick_text,
)

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one send.

    `sent`: Evolution took it, as `message_id`. `retry`: nothing was done, the same may
    succeed later, not before `retry_after` seconds where that is given. `unknown`: it
    may have been sent; the `send.message` event settles it. `dead`: never, as it is.
    `reason` is a short word for logs and people, never a text of the other side.
    """

    kind: SendKind
    message_id: str | None = None
    reason: str = ""
    retry_after: float | None = None


_RETRY_REASONS: Final = {429: "rate_limited", 502: "bad_gateway", 503: "unavailable"}
_DEAD_REASONS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
}
_MAX_ID: Final = 255


def outcome_of_failure(error: EvolutionError) -> SendOutcome:
    """Judge a send without an answer."""
    if error.outcome_unknown:
        return SendOutcome("unknown", reason=error.reason)
    if error.reason == "no_connection":
        return SendOutcome("retry", reason=error.reason)
    return SendOutcome("dead", reason=error.reason)


def outcome_of_answer(answer: Answer) -> SendOutcome:
    """Judge the answer to a send."""
    if answer.is_ok:
        return _accepted(answer)
    status = answer.status
    text = said(answer)
    if "LICENSE_REQUIRED" in text:
        return SendOutcome("dead", reason="license_required")
    # WhatsApp's own words for 429; Evolution passes them on as a 400 or a 500.
    reason = "rate_limited" if "rate-overlimit" in text else _RETRY_REASONS.get(status)
    if reason := reason or _unsent_reason(answer, text):
        return SendOutcome("retry", reason=reason, retry_after=answer.retry_after)
    if status >= 500 or status == 408:
        return SendOutcome("unknown", reason="server_error")
    return _refused(answer, text)


def _accepted(answer: Answer) -> SendOutcome:
    """Believe a success only with a message's id: a proxy may answer 200 too."""
    body = as_object(answer.body)
    # evolution-go: {"message": "success", "data": {"Info": {"ID": …}}}
    info = as_object(as_object(body.get("data")).get("Info"))
    found = pick_text(as_object(body.get("key")), "id") or pick_text(info, "ID", "Id")
    if found is not None:
        return SendOutcome("sent", clean_text(found.strip()[:_MAX_ID]))
    code = as_int(body.get("code"))
    # Evolution asks for no more than `message` to pass Meta's error on.
    if "key" not in body and code is not None and pick_text(body, "message"):
        return _refused_by_meta(code, is_transient=body.get("is_transient") is True)
    return SendOutcome("unknown", reason="strange_answer")


def _refused_by_meta(code: int, *, is_transient: bool) -> SendOutcome:
    """Judge an error of Meta's Graph, by its code alone: its text may quote anything.

    On Meta's channel Evolution answers 201 with the bare error of Graph, whatever its
    status was (`post` and `sendMessageWithTyping` in whatsapp.business.service.ts).
    """
    words = _META_WORDS.get(code)
    reason = f"meta_{code}" if words is None else f"meta_{code}_{words}"
    passes = is_transient or code in _META_PASSING or 500 <= code < 600
    return SendOutcome("retry" if passes else "dead", reason=reason)


# developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
_META_WORDS: Final = {
    0: "token_refused",
    1: "unknown_error",
    2: "service_down",
    4: "too_many_calls",
    10: "permission_denied",
    33: "no_such_number",
    100: "invalid_parameter",
    190: "token_expired",
    368: "policy_violation",
    80007: "rate_limited",
    130429: "rate_limited",
    131000: "something_went_wrong",
    131005: "access_denied",
    131016: "service_unavailable",
    131026: "undeliverable",
    131030: "not_in_allowed_list",
    131031: "account_locked",
    131042: "payment_problem",
    131047: "outside_24_hours",
    131048: "spam_limit",
    131056: "pair_rate_limited",
    131057: "maintenance",
    133004: "server_unavailable",
    133010: "number_not_registered",
}
_META_PASSING: Final = frozenset(
    {1, 2, 4, 80007, 130429, 131000, 131016, 131056, 131057, 133004}
)

CLOSED_REASONS: Final = ("connection_closed", "not_logged_in", "number_check")
"""Why nothing was sent while the instance was not open."""


def _unsent_reason(answer: Answer, text: str) -> str | None:
    """Say why an answer proves that nothing was sent, None where it does not.

    All of it is in `sendMessageWithTyping` of whatsapp.baileys.service.ts and
    whatsapp.business.service.ts, 2.3.6. The number check stands before the `try` whose
    catch makes a 400 of any error, so Evolution's own 500 comes before the send, in
    1.8.2, 2.2.3, 2.3.7 and 2.4.0-rc2 alike. Baileys throws "Connection Closed" before
    it writes (`sendRawMessage`), or for a query that precedes the message.
    """
    if answer.status == 500 and _is_evolutions(answer):
        is_closed = "Connection Closed" in text
        return "connection_closed" if is_closed else "number_check"
    if answer.status != 400:
        return None
    if "Connection Closed" in text:
        return "connection_closed"
    # `creds.me` of an instance that was never paired.
    if "Cannot read properties of undefined (reading 'id')" in text:
        return "not_logged_in"
    # `post` returned nothing: Graph could not be reached, or gave no JSON.
    if "Cannot read properties of undefined (reading 'message')" in text:
        return "graph_unreachable"
    return None


def _is_evolutions(answer: Answer) -> bool:
    """Whether Evolution's error handler made it, and no proxy or other program."""
    body = as_object(answer.body)
    return body.get("status") == answer.status and "response" in body


def _refused(answer: Answer, text: str) -> SendOutcome:
    status = answer.status
    if status == 400 and _is_absent(answer):
        return SendOutcome("dead", reason="not_on_whatsapp")
    # Not checks of the input: WhatsApp failed in the send, or Evolution's database
    # behind it.
    if status == 400 and "Timed Out" in text:
        return SendOutcome("unknown", reason="send_failed")
    if status == 400 and "Prisma" in text:
        return SendOutcome("unknown", reason="not_stored")
    if status == 404 and "does not exist" in text:
        return SendOutcome("dead", reason="no_such_instance")
    if status < 400:
        return SendOutcome("dead", reason="redirect")
    return SendOutcome("dead", reason=_DEAD_REASONS.get(status, "refused"))


def _is_absent(answer: Answer) -> bool:
    """Return whether the number check says that the person is not on WhatsApp."""
    response = as_object(as_object(answer.body).get("response"))
    entries = as_list(response.get("message"))
    return any(as_object(entry).get("exists") is False for entry in entries)


Generation = Literal["1", "2", "go"]

_OTHER_BODY: Final[dict[Generation, Generation]] = {"1": "2", "2": "1"}


class Post(NamedTuple):
    """The path, in decoded words, and the JSON body of a POST."""

    path: tuple[str, ...]
    body: dict[str, object]


def text_post(generation: Generation, instance: str, jid: str, text: str) -> Post:
    """Return the request that sends a text; `jid` goes out whole, as it arrived.

    Digits alone would be rewritten (Brazil's ninth digit) and may miss the person.
    """
    if generation == "go":
        return Post(("send", "text"), {"number": jid, "text": text})
    content = {"text": text} if generation == "2" else {"textMessage": {"text": text}}
    return Post(("message", "sendText", instance), {"number": jid, **content})


def typing_post(
    generation: Generation, instance: str, jid: str, seconds: float
) -> Post:
    """Return the request that shows "typing…"; 1.x and 2.x answer it afterwards."""
    if generation == "go":
        body = {"number": jid, "state": "composing", "isAudio": False}
        return Post(("message", "presence"), body)
    state = {"presence": "composing", "delay": round(seconds * 1000)}
    options = state if generation == "2" else {"options": state}
    return Post(("chat", "sendPresence", instance), {"number": jid, **options})


def other_generation(used: Generation, answer: Answer) -> Generation | None:
    """Return the generation that the answer points to, None when `used` was right."""
    if answer.status == 400 and "requires property" in said(answer):
        return _OTHER_BODY.get(used)
    if answer.status == 404 and "does not exist" not in said(answer):
        return "2" if used == "go" else "go"
    return None


def said(answer: Answer) -> str:
    """Return all that an error says: a string, a list or a list of lists."""
    body = as_object(answer.body)
    response = as_object(body.get("response"))
    parts = (body.get("code"), body.get("message"), response.get("message"))
    return " ".join(
        word for part in (*parts, body.get("error")) for word in _texts(part)
    )


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < 3:
        for item in as_list(value):
            yield from _texts(item, depth + 1)


_MAX_REMEMBERED: Final = 1000


class Generations:
    """Which generation an instance speaks: what worked last, else what others speak."""

    def __init__(self) -> None:
        self._known: dict[str, Generation] = {}
        self._latest: Generation = "2"

    def first(self, instance: str) -> Generation:
        """Return the one to try first."""
        return self._known.get(instance, self._latest)

    def remember(self, instance: str, generation: Generation) -> None:
        """Keep what worked; the longest known is forgotten beyond 1000 instances."""
        self._latest = generation
        self._known.pop(instance, None)
        self._known[instance] = generation
        if len(self._known) > _MAX_REMEMBERED:
            del self._known[next(iter(self._known))]


_MAX_PAGE_BYTES: Final = 32 * 2**20
MAX_TYPING_SECONDS: Final = 20.0
"""Evolution sleeps for the typing state in slices of 20 seconds."""


class EvolutionClient:
    """Speaks with one Evolution API; owns its connections, made when needed.

    Which body an instance wants is found out by the first send and remembered.

    Args:
        url: the base URL, with or without a path.
        api_key: the global key or an instance's; for evolution-go the instance's
            token, which alone says the instance.
        seconds: how long one request may take, connecting included.

    Raises, when made:
        ConfigError: the URL or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str, *, seconds: float = 15.0) -> None:
        self._rest = EvolutionRest(url, api_key)
        self._seconds = seconds
        self._generations = Generations()

    async def close(self) -> None:
        """Close the connections. Idempotent; a later call opens new ones."""
        await self._rest.close()

    async def send_text(self, instance: str, jid: str, text: str) -> SendOutcome:
        """Send a text once; `jid` is the whole one that the webhook named.

        Never raises but CancelledError, after which the outcome is unknown. It sends a
        second time only where the first answer says that the body's form was refused.
        """
        try:
            answer = await self._post(
                instance, lambda form: text_post(form, instance, jid, text)
            )
        except EvolutionError as error:
            outcome = outcome_of_failure(error)
        except Exception:
            logger.exception("a send by %r ended strangely", instance)
            return SendOutcome("unknown", reason="internal")
        else:
            outcome = outcome_of_answer(answer)
            if "[object Object]" in said(answer) and jid.endswith("@g.us"):
                outcome = await self._outcome_of_object(instance)
        if outcome.kind != "sent":
            logger.warning(
                "a send by %r: %s (%s)", instance, outcome.kind, outcome.reason
            )
        return outcome

    async def _outcome_of_object(self, instance: str) -> SendOutcome:
        """Judge what Evolution throws as an object where it asks for a group's data.

        It does so before it sends, for a group that is not there and, for any group,
        while the socket is away.
        """
        try:
            is_open = await self.connection_state(instance) == "open"
        except EvolutionError:
            is_open = False
        if is_open:
            return SendOutcome("dead", reason="group_not_found")
        return SendOutcome("retry", reason="connection_closed")

    async def connection_state(self, instance: str) -> str | None:
        """Return `open`, `connecting` or `close`; None: it does not say.

        Raises:
            EvolutionError: it cannot be asked; `not_found` from evolution-go.
        """
        answer = await self._get("instance", "connectionState", instance)
        body = as_object(answer.body)
        return pick_text(as_object(body.get("instance")), "state")

    async def send_typing(self, instance: str, jid: str, seconds: float) -> None:
        """Show "typing…" in a chat, for 20 seconds at most; best effort.

        1.x and 2.x answer when the time is over, so it takes that long. Never raises
        but CancelledError.
        """
        # In this order, so that NaN is 0.
        seconds = min(max(0.0, seconds), MAX_TYPING_SECONDS)
        try:
            await self._post(
                instance,
                lambda form: typing_post(form, instance, jid, seconds),
                extra_seconds=seconds,
            )
        except EvolutionError as error:
            logger.debug("no typing state by %r: %s", instance, error.reason)
        except Exception:
            logger.exception("a typing state by %r ended strangely", instance)

    async def find_messages(self, instance: str, body: dict[str, object]) -> object:
        """Return a page of what Evolution has stored: an object, or a list in 1.x.

        Raises:
            EvolutionError: it cannot be asked, stores nothing, or has no such route
                (evolution-go).
        """
        answer = await self._rest.call(
            "POST",
            ("chat", "findMessages", instance),
            body,
            seconds=self._seconds,
            max_bytes=_MAX_PAGE_BYTES,
        )
        if not answer.is_ok:
            raise EvolutionError(outcome_of_answer(answer).reason)
        if not isinstance(answer.body, (dict, list)):
            raise EvolutionError("strange_answer")
        return answer.body

    async def webhook_settings(self, instance: str) -> dict[str, Any] | None:
        """Return an instance's webhook as this version stores it, None without one.

        Raises:
            EvolutionError: it cannot be asked; `not_found` from evolution-go.
        """
        answer = await self._get("webhook", "find", instance)
        return answer.body if isinstance(answer.body, dict) else None

    async def instances(self) -> list[str]:
        """Return the names of all instances that the key may see.

        Raises:
            EvolutionError: it cannot be asked.
        """
        answer = await self._get("instance", "fetchInstances")
        return _instance_names(answer.body)

    async def is_go(self) -> bool:
        """Return whether evolution-go answers at the URL. Never raises.

        Cancelled, it ends at once.
        """
        try:
            answer = await self._get("server", "ok")
        except EvolutionError:
            return False
        return as_object(answer.body).get("status") == "ok"

    async def _post(
        self,
        instance: str,
        make: Callable[[Generation], Post],
        *,
        extra_seconds: float = 0.0,
    ) -> Answer:
        """Post in the form that the instance speaks; a refused form means another."""
        seconds = self._seconds + extra_seconds
        generation = self._generations.first(instance)
        tried: set[Generation] = set()
        while True:
            tried.add(generation)
            post = make(generation)
            answer = await self._rest.call(
                "POST", post.path, post.body, seconds=seconds
            )
            if answer.is_ok:
                self._generations.remember(instance, generation)
            other = other_generation(generation, answer)
            if other is None or other in tried:
                return answer
            generation = other

    async def _get(self, *path: str) -> Answer:
        answer = await self._rest.call("GET", path, seconds=self._seconds)
        if not answer.is_ok:
            outcome = outcome_of_answer(answer)
            raise EvolutionError(outcome.reason)
        return answer


def _instance_names(body: object) -> list[str]:
    """Return the names in an answer to fetchInstances.

    2.x: `[{"name": …}]`; 1.x: `[{"instance": {"instanceName": …}}]`.
    """
    names = []
    for entry in as_objects(body):
        inner = as_object(entry.get("instance"))
        name = pick_text(entry, "name", "instanceName") or pick_text(
            inner, "instanceName", "name"
        )
        if name is not None:
            names.append(name)
    return names
