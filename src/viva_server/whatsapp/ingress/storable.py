"""Encode as JSON what is stored of a delivery, with no secret of ours in it.

Hardly any delivery has something to take out, and a look at each of its texts takes as
long as reading it. So the JSON is looked at as a whole, and the texts only if need be.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeVar, cast

import msgspec

from viva_server.whatsapp.events.json_values import clean_text
from viva_server.whatsapp.ingress.redact import REMOVED

# A shorter secret would take ordinary words out of people's texts.
_MIN_HIDDEN_CHARS = 8
_NUL = "\\u0000"

_Value = TypeVar("_Value")


class _Hidden(NamedTuple):
    """A secret, as it is and as it stands in a text of JSON."""

    plain: str
    encoded: str


def storable(value: _Value, secrets: tuple[str, ...] = ()) -> tuple[_Value, str]:
    """Return a value of JSON that a jsonb column takes, and its encoding.

    `secrets` are taken out of every text and name in which they stand.
    """
    hidden = _worth_hiding(secrets)
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        pass
    else:
        if not _holds_any(encoded, hidden):
            return value, encoded
    clean = cast("_Value", _scrub(value, hidden))
    return clean, _encode(clean)


def _holds_any(encoded: str, hidden: tuple[_Hidden, ...]) -> bool:
    """Whether something in a text of JSON must not be stored."""
    for secret in hidden:
        if secret.encoded in encoded:
            return True
    return _NUL in encoded


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Take secrets out of a text and make it storable."""
    return _hide(text, _worth_hiding(secrets))


@lru_cache(maxsize=8)
def _worth_hiding(secrets: tuple[str, ...]) -> tuple[_Hidden, ...]:
    return tuple(
        _Hidden(secret, _encode(secret)[1:-1])
        for secret in secrets
        if len(secret) >= _MIN_HIDDEN_CHARS
    )


def _hide(text: str, hidden: tuple[_Hidden, ...]) -> str:
    for secret in hidden:
        text = text.replace(secret.plain, REMOVED)
    return clean_text(text)


def _scrub(value: object, hidden: tuple[_Hidden, ...]) -> object:
    if isinstance(value, str):
        return _hide(value, hidden)
    if isinstance(value, list):
        return [_scrub(item, hidden) for item in value]
    if isinstance(value, dict):
        return {_hide(name, hidden): _scrub(v, hidden) for name, v in value.items()}
    return value


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
