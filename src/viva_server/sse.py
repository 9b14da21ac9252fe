"""Server-sent events: the encoder of our stream; no I/O."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from viva_server.values import FinishReason, Status

END: Final = "end"
"""The offset in the id of a stream's last event."""

KEEP_ALIVE: Final = b": keep-alive\n"
"""A comment without a blank line: with one, some clients see an empty event."""

RETRY_MS: Final = 1000

# Nine digits stay below 2**31 and above any VIVA_MAX_REPLY_CHARS.
_EVENT_ID: Final = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):(end|0|[1-9][0-9]{0,8})"
)

_encode = msgspec.json.Encoder().encode


Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class AcceptedEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first event: the user's message is stored.

    The text goes on after `offset` characters; `resumed` is true for a client that
    came back, and missing otherwise.
    """

    accepted: Literal[True]
    session_id: str
    message_id: str
    user_message_id: str
    offset: int
    resumed: bool = False


class ContentEvent(msgspec.Struct, frozen=True):
    """Text that is stored. The number in `id` counts characters up to its end."""

    content: str


class DoneEvent(msgspec.Struct, frozen=True):
    """The last event: the reply is closed, `chars` and `sha256` are its row's."""

    done: Literal[True]
    session_id: str
    message_id: str
    status: Status
    finish_reason: FinishReason
    chars: int
    sha256: Sha256
    message_count: int


class ErrorEvent(msgspec.Struct, frozen=True):
    """The last event of a reply that failed without a character."""

    error: str
    code: str
    retryable: bool
    session_id: str
    message_id: str


class ServerSentEvent(msgspec.Struct, frozen=True):
    """The reply, as it is stored.

    This is the schema of each event: OpenAPI 3.1 has no word for a sequence of them.
    """

    media_type: ClassVar[str] = "text/event-stream"

    id: Annotated[
        str,
        msgspec.Meta(
            pattern="^[0-9a-f-]{36}:(end|[0-9]+)$",
            description="The message's id and how many characters of the reply there "
            "are up to here, or `end`: the cursor to come back with.",
        ),
    ]
    data: Annotated[
        str, msgspec.Meta(extra_json_schema={"contentMediaType": "application/json"})
    ]
    retry: (
        Annotated[int, msgspec.Meta(description="Milliseconds.")] | msgspec.UnsetType
    ) = msgspec.UNSET


def accepted_event(
    *,
    session_id: str,
    message_id: str,
    user_message_id: str,
    offset: int = 0,
    resumed: bool = False,
) -> bytes:
    """Encode the first event of a stream; its text goes on after `offset` characters.

    `resumed` says that the client came back to a reply that it knew.
    """
    body = AcceptedEvent(True, session_id, message_id, user_message_id, offset, resumed)
    return b"id: %b:%d\nretry: %d\ndata: %b\n\n" % (
        message_id.encode(),
        offset,
        RETRY_MS,
        _one_line(_encode(body)),
    )


def content_event(message_id: str, offset_after: int, text: str) -> bytes:
    """Encode new text; `offset_after` counts the reply's characters including it.

    Raises:
        UnicodeEncodeError: for a lone surrogate (`Storable` takes them out before).
    """
    data = _encode(text)
    if not text.isascii():
        data = _one_line(data)
    return b'id: %b:%d\ndata: {"content":%b}\n\n' % (
        message_id.encode(),
        offset_after,
        data,
    )


def done_event(
    *,
    session_id: str,
    message_id: str,
    status: Status,
    finish_reason: FinishReason,
    chars: int,
    sha256: str,
    message_count: int,
) -> bytes:
    """Encode the end of a stored reply; `chars` and `sha256` are those of its row."""
    return _end(
        message_id,
        DoneEvent(
            True,
            session_id,
            message_id,
            status,
            finish_reason,
            chars,
            sha256,
            message_count,
        ),
    )


def error_event(
    *, error: str, code: str, retryable: bool, session_id: str, message_id: str
) -> bytes:
    """Encode the end of a reply without text; `error` is a sentence for people."""
    return _end(message_id, ErrorEvent(error, code, retryable, session_id, message_id))


def parse_event_id(text: str) -> tuple[str, int | Literal["end"]] | None:
    """Split an id of our stream into the message's id and the offset, or `END`.

    None for anything that our encoder cannot have written.
    """
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        return None
    message_id, offset = match.groups()
    return message_id, (END if offset == END else int(offset))


def _end(message_id: str, body: DoneEvent | ErrorEvent) -> bytes:
    data = _one_line(_encode(body))
    return b"id: %b:end\ndata: %b\n\n" % (message_id.encode(), data)


def _one_line(data: bytes) -> bytes:
    """Escape what is a line end to Python's `splitlines`, on which clients rely.

    JSON escapes the control characters below U+0020 itself.
    """
    return (
        data.replace(b"\xe2\x80\xa8", b"\\u2028")
        .replace(b"\xe2\x80\xa9", b"\\u2029")
        .replace(b"\xc2\x85", b"\\u0085")
    )
