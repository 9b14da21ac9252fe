"""What one response was, worked out from its bytes after the run.

The load client only stores what it reads and when; this module does the rest when
no clock runs any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.clock import TOKEN_CHARS, age_seconds

Reads = list[tuple[float, bytes]]


@dataclass(slots=True)
class Reply:
    """A reply as its reader saw it; times are monotonic seconds."""

    text: str = ""
    token_times: list[float] = field(default_factory=list)
    token_ages: list[float] = field(default_factory=list)
    events: int = 0
    done_at: float | None = None
    problem: str | None = None

    @property
    def sha256(self) -> str:
        """The digest of the text, as the database has to give it too."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_reply(reads: Reads, tokens: int) -> Reply:
    """Judge one response, which should hold so many tokens and one ``done``."""
    reply = Reply()
    try:
        for at, data in _events(reads):
            _take(reply, at, json.loads(data))
    except ValueError as error:
        reply.problem = f"not understood: {error}"
    if reply.problem is None:
        reply.problem = _missing(reply, tokens)
    return reply


def _missing(reply: Reply, tokens: int) -> str | None:
    if len(reply.text) != tokens * TOKEN_CHARS:
        return f"{len(reply.text)} characters instead of {tokens * TOKEN_CHARS}"
    if reply.done_at is None:
        return "no done"
    return None


def _take(reply: Reply, at: float, event: dict[str, object]) -> None:
    reply.events += 1
    content = event.get("content")
    if isinstance(content, str):
        _take_text(reply, at, content)
    elif "error" in event:
        reply.problem = f"error event: {event.get('code')}"
    elif event.get("done"):
        reply.done_at = at
        if event.get("sha256", reply.sha256) != reply.sha256:
            reply.problem = "done names another text"


def _take_text(reply: Reply, at: float, content: str) -> None:
    reply.text += content
    start = len(reply.token_times) * TOKEN_CHARS
    for first in range(start, len(reply.text) - TOKEN_CHARS + 1, TOKEN_CHARS):
        token = reply.text[first : first + TOKEN_CHARS]
        reply.token_ages.append(age_seconds(token, at))
        reply.token_times.append(at)


def _events(reads: Reads) -> Iterator[tuple[float, bytes]]:
    buffer = b""
    for at, payload in _payloads(reads):
        buffer += payload.replace(b"\r\n", b"\n")
        *blocks, buffer = buffer.split(b"\n\n")
        for block in blocks:
            for line in block.split(b"\n"):
                if line.startswith(b"data:"):
                    yield at, line[5:]


def _payloads(reads: Reads) -> Iterator[tuple[float, bytes]]:
    """Undo the transfer coding: each piece with the time at which it was whole."""
    buffer = b""
    chunked: bool | None = None
    for at, data in reads:
        buffer += data
        if chunked is None:
            head, end, rest = buffer.partition(b"\r\n\r\n")
            if not end:
                continue
            _check_status(head, rest)
            chunked, buffer = b"transfer-encoding: chunked" in head.lower(), rest
        if not chunked:
            yield at, buffer
            buffer = b""
            continue
        while (whole := _chunk(buffer)) is not None:
            payload, buffer = whole
            yield at, payload


def _check_status(head: bytes, rest: bytes) -> None:
    if head[9:12] != b"200":
        raise ValueError(f"{head[:40]!r} {rest[:120]!r}")


def _chunk(buffer: bytes) -> tuple[bytes, bytes] | None:
    size, end, rest = buffer.partition(b"\r\n")
    if not end:
        return None
    length = int(size, 16)
    if len(rest) < length + 2:
        return None
    return rest[:length], rest[length + 2 :]
