"""What the body of an OpenAI-compatible chat completion means; no I/O.

Servers differ; docs/models.md says what is read of each habit, and why.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from viva_server.errors import ResponderError, SseDecodeError
from viva_server.responders.protocol import CompleteReason, finish_reason_of
from viva_server.responders.sse_decoder import ServerEvent, SseDecoder

MAX_EVENT_BYTES: Final = 16 * 2**20
"""Of one event, or of a body of JSON: a picture in base64 has megabytes."""

QUOTA: Final = "insufficient_quota"

_MAX_HELD_CHARS: Final = 1_000_000
_MAX_SNIFFED_BYTES: Final = 1024
_MAX_BLANK_CHARS: Final = 4096
_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
_USAGE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MAX_USAGE_NAMES: Final = 32

Nothing = Literal[""] | None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: Nothing = None
    reasoning_content: Nothing = None
    reasoning: Nothing = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: Nothing = None
    message: None = None
    error: None = None


class _TextEvent(msgspec.Struct, gc=False):
    """The shape of nearly every event: text of the first choice, and nothing else.

    An event of any other shape fails to decode, and is read field by field.
    """

    choices: tuple[_Choice]
    error: None = None
    usage: None = None


_decode_text_event = msgspec.json.Decoder(_TextEvent).decode


class _Number(str):
    """A number of a JSON text, as it is written there."""

    __slots__ = ()


# NaN and Infinity are no JSON, but servers in Python and C++ write them.
_JSON: Final = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=lambda _: None
)


class Completion:
    """Reads the body of one reply in pieces; bytes in, text out.

    Nothing raises before `close`, so that text in front of an error is never lost.
    `habits` collects what the server does beyond a plain stream, for `doctor`.

    Args:
        starts_thinking: the text begins inside `<think>`, without the tag.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_has_done",
        "_has_text",
        "_has_text_behind_reason",
        "_head",
        "_json",
        "_max_bytes",
        "_message",
        "_thinking",
        "_usage",
        "finish_reason",
        "habits",
        "has_ended",
    )

    def __init__(
        self, *, starts_thinking: bool = False, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._decoder = SseDecoder(max_event_bytes=max_event_bytes)
        self._max_bytes = max_event_bytes
        self._head: bytes | None = b""  # until it is known what the body is
        self._json: bytearray | None = None
        self._error: ResponderError | None = None
        self._has_done = False
        self._has_text = False
        self._has_text_behind_reason = False
        self._message = ""  # of `message.content`: the text if no delta has any
        self._thinking: _Thinking | None = _Thinking(is_inside=starts_thinking)
        self._usage: Mapping[str, Any] | None = None
        self.finish_reason: CompleteReason | None = None
        self.habits: set[str] = set()
        # Nothing more is worth reading.
        self.has_ended = False

    @property
    def is_settling(self) -> bool:
        """Whether the end of the body would be the end of a whole reply."""
        is_proved = self.finish_reason is not None and not self._has_text_behind_reason
        return is_proved and not self.has_ended

    @property
    def is_cut(self) -> bool:
        """Whether it has ended with an error."""
        return self._error is not None

    @property
    def usage(self) -> dict[str, Any] | None:
        """The server's count of tokens: numbers and objects of numbers by name."""
        return None if self._usage is None else _numbers_of(self._usage) or None

    def feed(self, chunk: bytes) -> str:
        """Return the text in the events that this piece completes."""
        data = self._decoder.lone_data(chunk)
        if data is None or self.has_ended:
            text = self._feed_any(chunk)
        else:
            text = self._take(data)
        return text + self._last_text() if self.has_ended else text

    def end(self, cut: ResponderError) -> str:
        """Take the body's end, however it came, and return the last text.

        `cut` is what `close` raises where the model has not said that it was done.
        """
        text = "" if self.has_ended else self._take_rest()
        is_proved = self.has_ended or self.is_settling
        if not is_proved:
            self._error = cut
        self.has_ended = True
        return text + self._last_text()

    def close(self) -> CompleteReason:
        """Say how the reply ended.

        Raises:
            ResponderError: `upstream_error` for a stream that was cut, had an error or
                garbage in it or says that it is broken; what `end` was given;
                `upstream_empty` for a reply that stopped without text.
        """
        if self._error is not None:
            raise self._error
        reason = self.finish_reason or "stop"
        if reason == "stop" and not self._has_text:
            raise ResponderError("upstream_empty", "the model's reply has no text")
        return reason

    def _feed_any(self, chunk: bytes) -> str:
        if self.has_ended:
            return ""
        if self._head is not None:
            chunk = self._head + chunk
            start = chunk.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if not start and len(chunk) < _MAX_SNIFFED_BYTES:
                self._head = chunk
                return ""
            self._head = None
            if start == b"<":
                self._fail(
                    "the model's server answered with a page", "upstream_refused"
                )
                return ""
            if start == b"{":
                self.habits.add("a whole JSON body in spite of stream: true")
                self._json = bytearray()
        if self._json is None:
            return self._feed_events(chunk)
        self._json += chunk
        if len(self._json) > self._max_bytes:
            self._fail("the model's body is too large")
        return ""

    def _feed_events(self, chunk: bytes) -> str:
        try:
            events = self._decoder.feed(chunk)
        except SseDecodeError:
            self._fail("the model's event is too large")
            return ""
        return "".join([self._take_event(event) for event in events])

    def _take_rest(self) -> str:
        """Take what has come of an event, or of a body of JSON, that has no end."""
        if self._json is not None:
            text = self._json.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
            try:
                value, _ = _JSON.raw_decode(text)
            except (ValueError, RecursionError):
                return ""
            return self._take_object(value)
        text = self._feed_events(b"")  # fails if an event was too large
        if (event := self._decoder.rest()) is None:
            return text
        return text + self._take_event(event, is_cut=True)

    def _take(self, data: bytes) -> str:
        """Take an event without a name."""
        try:
            text = _decode_text_event(data).choices[0].delta.content
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._take_event(ServerEvent(data.decode("utf-8", "replace")))
        return self._shown(text) if text else ""

    def _take_event(self, event: ServerEvent, *, is_cut: bool = False) -> str:
        if self.has_ended:
            return ""
        data = event.data
        is_error = event.event.strip().lower() == "error"
        if not is_error and _is_done(data):
            self._has_done = self.has_ended = True
            return ""
        try:
            value = _JSON.decode(data)
        except (ValueError, RecursionError):
            value = None
            is_garbage = event.event == "message" and "{" in data and not is_cut
            if is_garbage and not is_error:
                self._fail("the model's event is not what was expected")
        if is_error:
            self._fail_as_told(value if isinstance(value, dict) else data)
        elif isinstance(value, dict):
            return self._take_object(value)
        elif data:
            self.habits.add("events that are no part of the reply")
        return ""

    def _take_object(self, value: dict[str, Any]) -> str:
        text = ""
        choices = value.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict) and _is_first(choice.get("index"), place):
                text += self._take_choice(choice)
        usage = value.get("usage")
        if usage is None and isinstance(groq := value.get("x_groq"), dict):
            usage = groq.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        if _is_error(error := value.get("error")):
            self._fail_as_told(error)
        return text

    def _take_choice(self, choice: dict[str, Any]) -> str:
        delta, message = choice.get("delta"), choice.get("message")
        text = self._text_of(delta) if isinstance(delta, dict) else ""
        if text:
            text = self._shown(text)
        elif isinstance(message, dict) and (told := self._text_of(message)):
            self.habits.add("message in the place of delta")
            # Some repeat the text from its start in each event, some do not.
            goes_on = told.startswith(self._message)
            self._message = told if goes_on else self._message + told
        if _is_error(error := choice.get("error")):
            self._fail_as_told(error)
        elif (reason := finish_reason_of(choice.get("finish_reason"))) is not None:
            if reason == "upstream_error":
                self._fail("the model's server gave the reply up")
            else:
                self.finish_reason = reason
        return text

    def _text_of(self, delta: dict[str, Any]) -> str:
        content, refusal = delta.get("content"), delta.get("refusal")
        if delta.get("reasoning_content") or delta.get("reasoning"):
            self.habits.add("reasoning beside the text")
        text = ""
        if isinstance(content, list):
            self.habits.add("content as a list of parts")
            parts = [part for part in content if isinstance(part, dict)]
            texts = [part.get("text") for part in parts if part.get("type") == "text"]
            text = "".join([each for each in texts if isinstance(each, str)])
        elif isinstance(content, str):
            text = str(content)
        if isinstance(refusal, str) and refusal:
            self.habits.add("refusals in a field of their own")
            text += refusal
        return text

    def _shown(self, text: str) -> str:
        """Take reasoning out of text that has come, and note that there is text."""
        if (thinking := self._thinking) is not None:
            text = thinking.feed(text)
            if thinking.has_ended:
                self._thinking = None
                if thinking.has_tag:
                    self.habits.add("reasoning in <think>")
        if text:
            self._has_text = True
            if self.finish_reason is not None:
                self._has_text_behind_reason = True
                self.habits.add("text behind a finish reason")
        return text

    def _last_text(self) -> str:
        """Give what was held back, once it is known how the reply ended."""
        if not self._has_done and self._error is None:
            self.habits.add("no [DONE]")
        thinking, self._thinking = self._thinking, None
        if thinking is None:
            return ""
        # Cut by its length it is reasoning: nobody has seen its end.
        is_whole = self._error is None and self.finish_reason in {None, "stop"}
        text = thinking.flush(is_whole=is_whole)
        if not text and self._message and not self._has_text:
            again = _Thinking(is_inside=thinking.is_inside_from_start)
            text = again.feed(self._message) + again.flush(is_whole=is_whole)
        self._has_text = self._has_text or bool(text)
        return text

    def _fail_as_told(self, error: object) -> None:
        """Fail for an error that the server tells, in any of the forms they have."""
        reason, is_quota = reason_of(error)
        if is_quota:
            self._fail("the model's quota is used up", QUOTA, reason)
        else:
            message = "the model reported an error in its stream"
            self._fail(message, detail=reason)

    def _fail(
        self, message: str, code: str = "upstream_error", detail: str = ""
    ) -> None:
        is_final = code != "upstream_error"
        self._error = ResponderError(
            code, message, retryable=not is_final, detail=detail
        )
        self.has_ended = True


class _Thinking:
    """Takes a leading `<think>…</think>` out of the text, wherever it is split.

    Until the text is known to begin otherwise its blanks and a part of the tag are held
    back; behind the end tag blanks are dropped. `has_ended`: text passes as it is.
    """

    __slots__ = (
        "_held",
        "_kept",
        "_kept_chars",
        "_state",
        "has_ended",
        "has_tag",
        "is_inside_from_start",
    )

    def __init__(self, *, is_inside: bool) -> None:
        self.is_inside_from_start = is_inside
        self._state: Literal["before", "inside", "behind"] = (
            "inside" if is_inside else "before"
        )
        self._held = ""
        # Without an end tag this was no reasoning.
        self._kept: list[str] = []
        self._kept_chars = 0
        self.has_tag = False
        self.has_ended = False

    def feed(self, text: str) -> str:
        """Return what is text of the reply."""
        if self.has_ended:
            return text
        if self._state == "inside":
            self._keep(text)
        text = self._held + text
        self._held = ""
        if self._state == "before":
            return self._feed_before(text)
        if self._state == "inside":
            return self._feed_inside(text)
        return self._feed_behind(text)

    def flush(self, *, is_whole: bool) -> str:
        """Return what proves to be text when the reply has ended."""
        self.has_ended = True
        if self._state == "before":
            return self._held
        kept = "".join(self._kept)
        is_text = self._state == "inside" and self.is_inside_from_start and is_whole
        if not is_text or kept.lstrip().startswith(_OPEN):
            return ""
        return kept

    def _feed_before(self, text: str) -> str:
        start = text.lstrip()
        if start.startswith(_OPEN):
            self._state = "inside"
            self.has_tag = True
            return self._feed_inside(start[len(_OPEN) :])
        if _OPEN.startswith(start) and len(text) <= _MAX_BLANK_CHARS:
            self._held = text
            return ""
        self.has_ended = True
        return text

    def _feed_inside(self, text: str) -> str:
        _, tag, behind = text.partition(_CLOSE)
        if tag:
            self._state = "behind"
            self.has_tag = True
            return self._feed_behind(behind)
        self._held = text[1 - len(_CLOSE) :]
        return ""

    def _feed_behind(self, text: str) -> str:
        text = text.lstrip()
        self.has_ended = bool(text)
        return text

    def _keep(self, text: str) -> None:
        """Keep what may prove to be text; too much of it is reasoning for good."""
        if self.is_inside_from_start and self._kept_chars <= _MAX_HELD_CHARS:
            self._kept_chars += len(text)
            self._kept.append(text)
            if self._kept_chars > _MAX_HELD_CHARS:
                self._kept = [_OPEN]


def reason_of(error: object) -> tuple[str, bool]:
    """Read what a server says went wrong: its words, and whether a quota is used up.

    Takes any of the forms that they have, a whole body or the value of `error`.
    """
    for _ in range(3):
        if isinstance(error, list) and error:
            error = error[0]
        inner = error.get("error") if isinstance(error, dict) else None
        if not inner:
            break
        error = inner
    if not isinstance(error, dict):
        return (str(error) if isinstance(error, str) else ""), False
    words = (error.get(name) for name in ("message", "detail", "msg", "reason"))
    reason = next((word for word in words if word), error.get("code") or "")
    is_quota = QUOTA in (error.get("type"), error.get("code"))
    return (reason if isinstance(reason, str) else json.dumps(reason)), is_quota


def parse_json(text: str) -> Any:
    """Read JSON as servers write it; None where it is none."""
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError):
        return None


def _is_done(data: str) -> bool:
    if len(data) > 32 or "]" not in data:
        return False
    return data.strip().strip("\"'").strip().upper() == "[DONE]"


def _is_first(index: object, place: int) -> bool:
    return place == 0 if index is None else index in (0, "0")


def _is_error(value: object) -> bool:
    return bool(value) and value != "0"


def _numbers_of(usage: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Keep what is a number, of a server that may say anything."""
    numbers: dict[str, Any] = {}
    for name, value in list(usage.items())[:_MAX_USAGE_NAMES]:
        if not _USAGE_NAME.fullmatch(name):
            continue
        if isinstance(value, _Number) and len(value) < 20:
            number = int(value) if value.isdigit() else float(value)
            if math.isfinite(number):
                numbers[name] = number
        elif depth == 0 and isinstance(value, dict) and (of := _numbers_of(value, 1)):
            numbers[name] = of
    return numbers
