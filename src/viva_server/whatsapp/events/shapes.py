"""Reading JSON of unknown shape: every function takes anything and never raises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

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
