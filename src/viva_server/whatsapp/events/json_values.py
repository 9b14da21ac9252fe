"""From bytes to JSON that PostgreSQL can store, and reading JSON of unknown shape.

What JSON allows and a jsonb column does not (U+0000, lone surrogates), what Python
does not (thousands of digits, deep nesting) is replaced, never refused: Evolution
would drop the event for good at a 400. The readers `as_…` and `pick…` take anything
and never raise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
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


Object = Mapping[str, object]

_MAX_SECONDS = 1e11  # larger numbers are milliseconds; as seconds it is the year 5138


def as_object(value: object) -> Object:
    """Return a JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[Object]:
    """Return `data` as a list of objects: it may be one object, an array or null."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def as_list(value: object) -> Sequence[object]:
    """Return a JSON array, an empty one for anything else."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Return a string that is not blank."""
    return value if isinstance(value, str) and value.strip() else None


def as_flag(value: object) -> bool:
    """Return whether the value is true, in one of the forms that senders use."""
    if isinstance(value, str):
        return value.strip().lower() == "true"
    return value is True or value == 1


def as_int(value: object) -> int | None:
    """Return a whole number: a number, a string of digits or a Long object."""
    if isinstance(value, dict):
        return _long(value)
    if isinstance(value, str) and 0 < len(value) <= 20 and value.isascii():
        digits = value.removeprefix("-")
        return int(value) if digits.isdigit() else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return None


def _long(value: Object) -> int | None:
    # Baileys 7 without toJSON: {"low":…,"high":…,"unsigned":…}, low is signed.
    low, high = value.get("low"), value.get("high")
    if isinstance(low, int) and isinstance(high, int):
        return high * 2**32 + (low & 0xFFFFFFFF)
    return None


def as_float(value: object) -> float | None:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and abs(value) < _MAX_SECONDS else None


def as_epoch(value: object) -> int | None:
    """Return epoch seconds of a number (seconds, ms), a Long or an ISO 8601 text."""
    if isinstance(value, str) and "T" in value:
        return _iso_epoch(value)
    number = as_int(value)
    if number is not None and number > _MAX_SECONDS:
        number //= 1000
    return number if number is not None and 0 < number < _MAX_SECONDS else None


def _iso_epoch(value: str) -> int | None:
    try:
        moment = datetime.fromisoformat(value)
        seconds = int(moment.timestamp()) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and seconds > 0 else None


def pick(source: Object, *names: str) -> object:
    """Return the first of the fields that is there and not null.

    evolution-go spells some names otherwise (`stanzaID`, `URL`).
    """
    for name in names:
        if (value := source.get(name)) is not None:
            return value
    return None


def pick_text(source: Object, *names: str) -> str | None:
    """Return the first of the fields that is a string and not blank."""
    for name in names:
        if (value := as_text(source.get(name))) is not None:
            return value
    return None
