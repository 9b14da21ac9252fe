"""From the bytes of a webhook to a JSON object that PostgreSQL can store.

What JSON allows and a jsonb column does not (U+0000, lone surrogates), what Python
does not (thousands of digits, deep nesting) is replaced, never refused: Evolution
would drop the event for good at a 400.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

import msgspec

MAX_DEPTH = 64
TOO_DEEP = "(nested too deep)"

_MAX_NUMBER_CHARS = 300
# What a body may cost on the event loop: about 20 ms, with all that is done with it.
_LIGHT_BYTES = 4 * 2**10
_HEAVY_BYTES = 256 * 2**10
_HEAVY_VALUES = 20_000
_CONTAINER_VALUES = 8  # a container costs as much as so many numbers
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NUL_ESCAPE = b"\\u0000"
_CONTAINERS = (dict, list)
# Strings first: brackets inside them are text. A quote alone is an open string.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)


class NotJsonObjectError(ValueError):
    """The bytes are not a JSON object."""


def is_heavy(raw: bytes | bytearray) -> bool:
    """Return whether to decode a body would hold up an event loop.

    Not the bytes make it slow but the values: 256 KiB of empty arrays take as long as
    100 MiB of base64.
    """
    if len(raw) <= _LIGHT_BYTES:
        return False
    if len(raw) > _HEAVY_BYTES:
        return True
    containers = raw.count(b"[") + raw.count(b"{")
    return raw.count(b",") + _CONTAINER_VALUES * containers > _HEAVY_VALUES


def clean_text(text: str) -> str:
    """Replace what PostgreSQL cannot store by U+FFFD."""
    return text if text.isprintable() else _UNSTORABLE.sub("\ufffd", text)


def decode_object(raw: bytes | bytearray) -> dict[str, object]:
    """Decode a body; of duplicate keys the last one wins.

    Raises:
        NotJsonObjectError: not UTF-8, not JSON, or JSON of another type.
    """
    value = decode_value(raw)
    if not isinstance(value, dict):
        raise NotJsonObjectError("the body is not a JSON object")
    return value


def decode_value(raw: bytes | bytearray) -> object:
    """Decode any JSON.

    Raises:
        NotJsonObjectError: not UTF-8 or not JSON.
    """
    try:
        return _decode(raw)
    except (ValueError, RecursionError) as error:
        raise NotJsonObjectError("the body is not JSON") from error


def _decode(raw: bytes | bytearray) -> object:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _tidy(_decode_odd(raw.decode("utf-8-sig")), 0)
    # How deep the decoder goes differs by Python's version; what comes behind does not.
    may_be_deep = raw.count(b"[") + raw.count(b"{") > MAX_DEPTH
    if _NUL_ESCAPE in raw or (may_be_deep and _is_deep(value)):
        return _tidy(value, 0)
    return value


def _is_deep(value: object) -> bool:
    """Return whether something is nested below MAX_DEPTH; level by level, no copy."""
    level = [value]
    for _ in range(MAX_DEPTH):
        members = [v.values() if type(v) is dict else v for v in level]
        level = [v for of in members for v in of if type(v) in _CONTAINERS]  # type: ignore[attr-defined]
        if not level:
            return False
    return True


def _decode_odd(text: str) -> object:
    """Decode what the fast decoder refuses: surrogates, huge numbers, deep nesting."""
    try:
        return _loads(text)
    except RecursionError:
        return _loads(_flatten(text))


def _loads(text: str) -> object:
    return json.loads(
        text, parse_constant=_refuse, parse_int=_integer, parse_float=_decimal
    )


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_NUMBER_CHARS else "(long number)"


def _decimal(digits: str) -> float | str:
    number = float(digits)
    return number if abs(number) != float("inf") else "(long number)"


def _flatten(text: str) -> str:
    """Put TOO_DEEP in the place of everything below MAX_DEPTH."""
    kept: list[str] = []
    depth = 0
    start = 0
    for token in _TOKEN.finditer(text):
        if token[0] == '"':
            raise ValueError("a string is not closed")
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH:
                kept.append(text[start : token.start()] + json.dumps(TOO_DEEP))
        elif token[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH - 1:
                start = token.end()
    if depth >= MAX_DEPTH:
        raise ValueError("a bracket is not closed")
    return "".join([*kept, text[start:]])


def _tidy(value: object, depth: int) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if not isinstance(value, (dict, list)):
        return value
    if depth >= MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, list):
        return [_tidy(item, depth + 1) for item in value]
    return {clean_text(key): _tidy(item, depth + 1) for key, item in value.items()}
