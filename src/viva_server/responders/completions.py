"""What the events of an OpenAI-compatible chat completion mean; no I/O."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import msgspec

from viva_server.errors import ResponderError, SseDecodeError
from viva_server.sse_decoder import SseDecoder

# The words of OpenAI, and of the servers that say the same thing in their own.
_WHOLE: Final[dict[str, Literal["stop", "length"]]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
}
_FILTERED: Final = frozenset({"content_filter", "safety", "sensitive"})


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Completion:
    """Reads one streamed completion; bytes in, text out.

    Nothing raises before `close`, so that text in front of an error is never lost.
    Only the first choice counts. Text of a reasoning model outside `content` is not
    part of the reply.
    """

    __slots__ = ("_decoder", "_error", "_has_text", "finish_reason", "has_ended")

    def __init__(self, *, max_event_bytes: int = 1_048_576) -> None:
        self._decoder = SseDecoder(max_event_bytes=max_event_bytes)
        self._error: ResponderError | None = None
        self._has_text = False
        self.finish_reason: str | None = None
        # Nothing more is worth reading: after `[DONE]` or an error.
        self.has_ended = False

    def is_cut(self) -> bool:
        """Say whether the model has neither ended the reply nor failed."""
        return not self.has_ended and self.finish_reason is None

    def feed(self, chunk: bytes) -> str:
        """Return the text in the events that this piece completes."""
        if self.has_ended:
            return ""
        if (data := self._decoder.lone_data(chunk)) is not None:
            return self._take(data)
        try:
            events = self._decoder.feed(chunk)
        except SseDecodeError:
            self._fail("the model's event is too large")
            return ""
        return "".join([self._take(event.data.encode()) for event in events])

    def close(self) -> Literal["stop", "length"]:
        """Say how the reply ended.

        Raises:
            ResponderError: `upstream_error` for a stream that was cut, had an error or
                garbage in it or ended for a reason that is not ours;
                `content_filter`; `upstream_empty` for a reply without text.
        """
        if self._error is not None:
            raise self._error
        if self.is_cut():
            raise ResponderError("upstream_error", "the model's stream was cut")
        reason = (self.finish_reason or "stop").lower()
        if reason in _FILTERED:
            raise ResponderError(
                "content_filter", "the model's filter ended the reply", retryable=False
            )
        if reason not in _WHOLE:  # tool_calls among them: we offer no tools
            raise ResponderError("upstream_error", "the model ended for another reason")
        if not self._has_text:
            raise ResponderError("upstream_empty", "the model's reply has no text")
        return _WHOLE[reason]

    def _take(self, data: bytes) -> str:
        if self.has_ended or not data:  # nothing: some servers' keep-alive
            return ""
        if data == b"[DONE]":
            self.has_ended = True
            return ""
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            chunk = self._decode_slowly(data.decode("utf-8", "replace"))
        if chunk.error is not None:
            self._fail("the model reported an error in its stream")
            return ""
        text = ""
        for choice in chunk.choices or ():
            if choice.index:  # another choice than the first
                continue
            if (delta := choice.delta) is not None and delta.content:
                text += delta.content
                self._has_text = True
            if choice.finish_reason:
                self.finish_reason = choice.finish_reason
        return text

    def _decode_slowly(self, data: str) -> _Chunk:
        """Accept what only Python's parser does: half a surrogate pair in a delta."""
        try:
            loaded: Any = json.loads(data)
            return msgspec.convert(loaded, _Chunk)
        except (msgspec.ValidationError, ValueError, RecursionError):
            self._fail("the model's event is not what was expected")
            return _Chunk()

    def _fail(self, message: str) -> None:
        self._error = ResponderError("upstream_error", message)
        self.has_ended = True
