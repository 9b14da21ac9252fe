"""Server-sent events: a decoder of anybody's stream; no I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from viva_server.errors import SseDecodeError

_BOM: Final = b"\xef\xbb\xbf"
_MAX_RETRY_DIGITS: Final = 18


class ServerEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event."""

    data: str
    event: str = "message"
    id: str = ""


class SseDecoder:
    """Decodes a stream in pieces that may be cut anywhere, as WHATWG's HTML § 9.2.6.

    Invalid UTF-8 becomes U+FFFD. An event that the stream's end cuts off is never
    dispatched; who wants it all the same calls `rest`. An event of the name `error`
    needs no data, and a line `error: …`, which llama.cpp wrote until 2025, makes one.
    `retry_ms` is the last reconnection time that the stream asked for;
    `last_event_id` is what a client would send when it comes back.

    A line, or the data lines of one event together, may have `max_event_bytes`.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_broken",
        "_data",
        "_event",
        "_id",
        "_is_between",
        "_max_bytes",
        "_pending",
        "_size",
        "last_event_id",
        "retry_ms",
    )

    def __init__(self, *, max_event_bytes: int = 1_048_576) -> None:
        self._max_bytes = max_event_bytes
        self._pending = bytearray()  # of the line that has not ended yet
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = ""
        self._at_start = True
        self._after_cr = False
        self._broken = False
        self._is_between = False  # nothing but `_id` is left of what came before
        self.last_event_id = ""
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Return the events that this piece completes.

        Raises:
            SseDecodeError: beyond the limit, as soon as the events before it have
                been returned, and from then on.
        """
        events: list[ServerEvent] = []
        if not self._broken:
            if self._after_cr or b"\r" in chunk:
                chunk = self._with_lf_only(chunk)
            self._feed_lines(chunk, events)
            unfinished = self._pending or self._data or self._event or self._after_cr
            self._is_between = not (unfinished or self._at_start or self._broken)
        if self._broken and not events:
            raise SseDecodeError(f"an event has more than {self._max_bytes} bytes")
        return events

    def lone_data(self, chunk: bytes) -> bytes | None:
        """Take a piece that is an event of one line of data; give that data.

        Nearly every token comes so, and needs no more of a decoder. Any other piece,
        for which this gives None, is for `feed`.
        """
        size = len(chunk) - 2
        if (
            self._is_between
            and chunk.find(b"\n") == size
            and chunk.startswith(b"data: ")
            and chunk.endswith(b"\n")
            and b"\r" not in chunk
            and size <= self._max_bytes
        ):
            self.last_event_id = self._id
            return chunk[6:-2]
        return None

    def rest(self) -> ServerEvent | None:
        """Give the event that the stream's end has cut off, if there is any of it.

        Not part of the standard: many servers leave out the last blank line.
        """
        if self._broken:
            return None
        line = bytes(self._pending)
        self._pending.clear()
        if self._at_start:
            line = line.removeprefix(_BOM)
        if line:
            self._take_field(line)
        is_event = self._data or self._event == "error"
        return self._dispatch() if is_event and not self._broken else None

    def _feed_lines(self, chunk: bytes, events: list[ServerEvent]) -> None:
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._pending:
                lines[0] = bytes(self._pending) + lines[0]
                self._pending.clear()
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(_BOM)
            self._take_lines(lines, events)
        if rest:
            self._pending += rest
            if len(self._pending) > self._max_bytes:
                self._break()

    def _take_lines(self, lines: list[bytes], events: list[ServerEvent]) -> None:
        for line in lines:
            if not line:
                if self._data or self._event == "error":
                    events.append(self._dispatch())
                self.last_event_id = self._id
                self._event = ""
            elif self._broken or len(line) > self._max_bytes:
                self._break()
                break
            elif line.startswith(b"data: "):
                self._add_data(line[6:])
            else:
                self._take_field(line)

    def _dispatch(self) -> ServerEvent:
        data = self._data
        raw = data[0] if len(data) == 1 else b"\n".join(data)
        event = ServerEvent(
            raw.decode("utf-8", "replace"), self._event or "message", self._id
        )
        data.clear()
        self._size = 0
        return event

    def _add_data(self, value: bytes) -> None:
        self._size += len(value) + 6
        if self._size > self._max_bytes:
            self._break()
        else:
            self._data.append(value)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"error" and b":" in line:
            self._event = "error"
            self._add_data(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry_ms = int(value)

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk:
            # The LF of a CRLF that was cut in two; its CR has ended the line already.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _break(self) -> None:
        self._broken = True
        self._pending.clear()
        self._data.clear()
