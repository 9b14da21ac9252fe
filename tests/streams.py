"""The bytes of a stream, read strictly: what is not in the grammar is a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

_KEEP_ALIVES = rb"(?:: keep-alive\n)*"
_EVENT = re.compile(
    _KEEP_ALIVES + rb"id: (\S+)\n(?:retry: (\d+)\n)?data: ([^\r\n]+)\n\n"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `id:`, perhaps `retry:`, one `data:` line of JSON, no more."""

    id: str
    data: dict[str, Any]
    retry: int | None = None

    @property
    def offset(self) -> str:
        """What stands behind the message's id: a number or "end"."""
        return self.id.rpartition(":")[2]


def parse_events(raw: bytes) -> list[Event]:
    """Read whole events; anything that is not in the grammar is an AssertionError."""
    events, place = [], 0
    while match := _EVENT.match(raw, place):
        retry = None if match[2] is None else int(match[2])
        events.append(Event(match[1].decode(), json.loads(match[3]), retry))
        place = match.end()
    rest = re.sub(_KEEP_ALIVES, b"", raw[place:])
    assert rest == b"", f"not in the grammar: {rest[:200]!r}"
    return events


def text_of(events: Iterable[Event]) -> str:
    """Join the text of events."""
    return "".join(event.data.get("content", "") for event in events)


class Stream:
    """A response with events that has begun."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.headers = response.headers
        self.raw = b""
        self._read = 0

    async def event(self) -> Event:
        """Read the next event."""
        while (end := self.raw.find(b"\n\n", self._read)) < 0:
            chunk = await self.response.content.readany()
            assert chunk, "the stream ended before its next event"
            self.raw += chunk
        [event] = parse_events(self.raw[self._read : end + 2])
        self._read = end + 2
        return event

    async def read_text(self, chars: int) -> str:
        """Read events until they have brought so many characters."""
        text = ""
        while len(text) < chars:
            text += (await self.event()).data["content"]
        return text

    async def rest(self) -> list[Event]:
        """Read to the clean end; give the events that `event` has not given."""
        self.raw += await self.response.content.read()
        events = parse_events(self.raw[self._read :])
        self._read = len(self.raw)
        return events
