"""What goes over the wire: requests checked, answers shaped; no I/O.

The Portuguese names are those of the system that this one replaces. The pointers of
errors are JSON pointers (RFC 6901) into the body; those of a query and of headers
begin with /query/ and /headers/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from viva_server.errors import VivaError

MAX_MESSAGE_CHARS = 32_000
MAX_MODO_CHARS = 32
MAX_KEY_CHARS = 255
MAX_PAGE = 1_000_000
MAX_SEQ = 2**31 - 1

Tipo = Literal["usuario", "ia"]
Status = Literal["streaming", "complete", "partial", "failed"]
FinishReason = Literal[
    "stop",
    "length",
    "stopped",
    "disconnected",
    "superseded",
    "shutdown",
    "crashed",
    "upstream_error",
    "limit",
]
Pairs = Iterable[tuple[str, str]]
"""Names and values in the order in which they came, such as `request.query.items()`."""

_NUMBER = re.compile(r"(-?)0*([0-9]+)")
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


class WireError(VivaError):
    """What came over the wire cannot be taken; `status` and `code` say how.

    `errors` are pairs of a pointer and a message that a client may be shown.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message, on POST /viva/chat and /viva/chat/stream.

    Unknown members and `prompt_extra` are ignored. Of `contexto` only the length is
    ever used. `session_id` is canonical. The constraints below are what OpenAPI
    shows; `read_chat_request` enforces them.
    """

    mensagem: Annotated[
        str, Meta(min_length=1, max_length=MAX_MESSAGE_CHARS, pattern=r"\S")
    ]
    session_id: str | None = None
    modo: Annotated[str, Meta(max_length=MAX_MODO_CHARS)] | None = None
    contexto: list[Any] | None = None

    @property
    def contexto_len(self) -> int | None:
        """How many entries `contexto` has; None without one."""
        return None if self.contexto is None else len(self.contexto)


class NewSessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a new session."""

    modo: Annotated[str, Meta(max_length=MAX_MODO_CHARS)] | None = None


class SnapshotQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of which session a snapshot shows."""

    session_id: str | None
    limit: int
    before: int | None


class SessionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a person's sessions is wanted."""

    page: int
    page_size: int

    @property
    def offset(self) -> int:
        """How many sessions come before this page; it fits 32 bits."""
        return (self.page - 1) * self.page_size


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of POST /viva/chat."""

    resposta: str
    session_id: str
    message_id: str
    user_message_id: str
    status: Status
    finish_reason: FinishReason | None
    midia: tuple[()] = ()


class MessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message in a snapshot."""

    id: str
    seq: int
    tipo: Tipo
    conteudo: str
    modo: str | None
    anexos: list[Any]
    meta: dict[str, Any]
    status: Status
    finish_reason: FinishReason | None
    created_at: datetime


class ActiveReply(msgspec.Struct, frozen=True, kw_only=True):
    """The session's live reply and how many characters of it are stored."""

    message_id: str
    offset: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The newest messages of a session, oldest first."""

    session_id: str | None = None
    modo: str | None = None
    messages: list[MessageItem] = []
    has_more: bool = False
    active_reply: ActiveReply | None = None


class SessionItem(msgspec.Struct, frozen=True, kw_only=True):
    """A session in the list of a person's sessions."""

    id: str
    modo: str | None
    titulo: str | None
    channel: Literal["web", "whatsapp"]
    message_count: int
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a person's sessions, newest first."""

    items: list[SessionItem]
    total: int
    page: int
    page_size: int


to_json = msgspec.json.Encoder().encode


def tipo_of(role: str) -> Tipo:
    """Return the wire's word for a role ("user" or "assistant")."""
    return "usuario" if role == "user" else "ia"


def read_chat_request(body: dict[str, Any]) -> ChatRequest:
    """Check a decoded body.

    Raises:
        WireError: 422 with a pointer for every member that is wrong; 404 for a
            `session_id` that is a text but no id, since no session has it.
    """
    errors = [
        *_text_errors(body, "mensagem", MAX_MESSAGE_CHARS, required=True),
        *_text_errors(body, "modo", MAX_MODO_CHARS),
        *_type_errors(body, "session_id", str, "must be a text"),
        *_type_errors(body, "contexto", list, "must be an array"),
    ]
    _refuse(errors)
    return ChatRequest(
        mensagem=body["mensagem"],
        session_id=_session_id(body.get("session_id"), "/session_id"),
        modo=body.get("modo"),
        contexto=body.get("contexto"),
    )


def read_new_session(body: dict[str, Any]) -> NewSessionRequest:
    """Check a decoded body; raise WireError 422 if it is wrong."""
    _refuse(_text_errors(body, "modo", MAX_MODO_CHARS))
    return NewSessionRequest(modo=body.get("modo"))


def read_snapshot_query(pairs: Pairs) -> SnapshotQuery:
    """Read `session_id`, `limit` (1…250 clamped, else 120) and `before` (a `seq`).

    Raises:
        WireError: 400 for what is no number or stands twice; 404 for no id.
    """
    values = single_values(pairs)
    before = _number(values, "before")
    if before is not None and before < 1:
        raise _bad_query("before", "must be 1 or more")
    return SnapshotQuery(
        session_id=_session_id(values.get("session_id"), "/query/session_id"),
        limit=_clamped(_number(values, "limit"), 120, 250),
        before=None if before is None else min(before, MAX_SEQ),
    )


def read_sessions_query(pairs: Pairs) -> SessionsQuery:
    """Read `page` (from 1) and `page_size` (1…100, else 20), both clamped.

    Raises:
        WireError: 400 for what is no number or stands twice.
    """
    values = single_values(pairs)
    return SessionsQuery(
        page=_clamped(_number(values, "page"), 1, MAX_PAGE),
        page_size=_clamped(_number(values, "page_size"), 20, 100),
    )


def single_values(pairs: Pairs) -> dict[str, str]:
    """Return a query's parameters; raise WireError 400 if one stands twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise _bad_query(name, "stands more than once")
        values[name] = value
    return values


def known_id(text: str, kind: Literal["session", "message"], pointer: str = "") -> str:
    """Return an id in its canonical form.

    Raises:
        WireError: 404, the same as for an id that does not exist: no uuid, no row.
    """
    if _ID.fullmatch(text) is None:
        raise not_found(kind, pointer)
    return text.lower()


def not_found(kind: Literal["session", "message"], pointer: str = "") -> WireError:
    """Make the one answer for an id that is unknown, foreign or none."""
    errors = [(pointer, "is not known")] if pointer else ()
    return WireError(404, f"{kind}_not_found", f"There is no such {kind}.", errors)


def read_idempotency_key(values: Sequence[str]) -> str | None:
    """Read all values of the header Idempotency-Key; None without one.

    Raises:
        WireError: 400 unless it is one value of 1 to 255 printable ASCII characters.
    """
    if not values:
        return None
    key = values[0]
    if len(values) > 1:
        raise _bad_key("stands more than once")
    if not (1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise _bad_key(f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return key


def _session_id(text: str | None, pointer: str) -> str | None:
    return None if text is None else known_id(text, "session", pointer)


def _text_errors(
    body: dict[str, Any], name: str, most: int, *, required: bool = False
) -> list[tuple[str, str]]:
    pointer, value = f"/{name}", body.get(name)
    if value is None:
        return [(pointer, "is required")] if required else []
    if not isinstance(value, str):
        return [(pointer, "must be a text")]
    if len(value) > most:
        return [(pointer, f"must have at most {most} characters")]
    if required and not value.strip():
        return [(pointer, "must not be blank")]
    return []


def _type_errors(
    body: dict[str, Any], name: str, kind: type, message: str
) -> list[tuple[str, str]]:
    value = body.get(name)
    return [] if value is None or isinstance(value, kind) else [(f"/{name}", message)]


def _refuse(errors: Sequence[tuple[str, str]]) -> None:
    if errors:
        detail = "The body has members that cannot be taken."
        raise WireError(422, "validation_error", detail, errors)


def _number(values: dict[str, str], name: str) -> int | None:
    if (text := values.get(name)) is None:
        return None
    if (match := _NUMBER.fullmatch(text)) is None:
        raise _bad_query(name, "must be a whole number")
    # int() refuses texts above 4300 digits; 12 are more than any limit here.
    return int(match[1] + match[2][:12])


def _clamped(value: int | None, default: int, most: int) -> int:
    return default if value is None else max(1, min(value, most))


def _bad_query(name: str, message: str) -> WireError:
    errors = [(f"/query/{name[:64]}", message)]
    detail = "The query has a parameter that cannot be taken."
    return WireError(400, "bad_query", detail, errors)


def _bad_key(message: str) -> WireError:
    errors = [("/headers/Idempotency-Key", message)]
    detail = "The header Idempotency-Key cannot be taken."
    return WireError(400, "bad_idempotency_key", detail, errors)
