"""What goes over the wire: requests checked, answers shaped; no I/O.

The Portuguese names are those of the system that this one replaces. The pointers of
errors are JSON pointers (RFC 6901) into the body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from viva_server.api.codes import status_of
from viva_server.errors import VivaError
from viva_server.words import Channel, FinishReason, Status

MAX_MESSAGE_CHARS = 32_000
MAX_MODO_CHARS = 32

Tipo = Literal["usuario", "ia"]
Modo = Annotated[str, Meta(max_length=MAX_MODO_CHARS)]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[datetime, Meta(tz=True)]
Seq = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]

_NOT_FOUND = {"session": "session_not_found", "message": "message_not_found"}
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


class WireError(VivaError):
    """What came over the wire cannot be taken; `code` says how, `status` follows.

    `errors` are pairs of a pointer and a message that a client may be shown.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status_of(code)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message. Unknown members and `prompt_extra` are ignored."""

    # The constraints are what OpenAPI shows; `read_chat_request` enforces them.
    mensagem: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_MESSAGE_CHARS,
            pattern=r"\S",
            description="Not blank.",
        ),
    ]
    session_id: Annotated[
        str | None, Meta(description="Where it goes; by default the newest session.")
    ] = None
    modo: Modo | None = None
    contexto: Annotated[
        list[Any] | None, Meta(description="Only its length is ever used.")
    ] = None

    @property
    def contexto_len(self) -> int | None:
        """How many entries `contexto` has; None without one."""
        return None if self.contexto is None else len(self.contexto)


class NewSessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a new session."""

    modo: Modo | None = None


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The stored reply."""

    resposta: str
    session_id: Id
    message_id: Id
    user_message_id: Id
    status: Status
    finish_reason: FinishReason | None
    midia: tuple[()] = ()


class MessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message, as it stands in a snapshot."""

    id: Id
    seq: Seq
    tipo: Tipo
    conteudo: str
    modo: str | None
    anexos: list[Any]
    meta: dict[str, Any]
    status: Status
    finish_reason: FinishReason | None
    created_at: Time


class ActiveReply(msgspec.Struct, frozen=True, kw_only=True):
    """The session's live reply and how many characters of it are stored."""

    message_id: Id
    offset: Count


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The newest messages of a session, oldest first."""

    session_id: Id | None = None
    modo: str | None = None
    messages: list[MessageItem] = []
    has_more: bool = False
    active_reply: ActiveReply | None = None


class SessionItem(msgspec.Struct, frozen=True, kw_only=True):
    """A session in the list of a person's sessions."""

    id: Id
    modo: str | None
    titulo: str | None
    channel: Channel
    message_count: Count
    created_at: Time
    updated_at: Time
    last_message_at: Time | None


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a person's sessions, newest first."""

    items: list[SessionItem]
    total: Count
    page: Seq
    page_size: Seq


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
        session_id=optional_session_id(body.get("session_id"), "/session_id"),
        modo=body.get("modo"),
        contexto=body.get("contexto"),
    )


def read_new_session(body: dict[str, Any]) -> NewSessionRequest:
    """Check a decoded body; raise WireError 422 if it is wrong."""
    _refuse(_text_errors(body, "modo", MAX_MODO_CHARS))
    return NewSessionRequest(modo=body.get("modo"))


def known_id(text: str, kind: Literal["session", "message"], pointer: str = "") -> str:
    """Return an id in its canonical form.

    Raises:
        WireError: 404, the same as for an id that does not exist: no uuid, no row.
    """
    if not is_id(text):
        raise not_found(kind, pointer)
    return text.lower()


def is_id(text: str) -> bool:
    """Whether a text is an id: a uuid as PostgreSQL writes it, in any case."""
    return _ID.fullmatch(text) is not None


def optional_session_id(text: str | None, pointer: str) -> str | None:
    """Return the canonical id, or None for none; raise WireError as `known_id`."""
    return None if text is None else known_id(text, "session", pointer)


def not_found(kind: Literal["session", "message"], pointer: str = "") -> WireError:
    """Make the one answer for an id that is unknown, foreign or none."""
    errors = [(pointer, "is not known")] if pointer else ()
    return WireError(_NOT_FOUND[kind], f"There is no such {kind}.", errors)


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
        raise WireError("validation_error", detail, errors)
