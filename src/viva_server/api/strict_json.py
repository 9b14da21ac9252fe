"""The one strict JSON decoder: an object, without anything that readers disagree on.

RFC 8259 leaves duplicate names (§ 4), the size of numbers (§ 6) and lone surrogates
(§ 8.2) to the reader, and PostgreSQL stores neither U+0000 nor lone surrogates.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from viva_server.api.wire import WireError

MAX_DEPTH = 64
MAX_CONTAINERS = 10_000
"""Arrays and objects; 1 MiB has room for 500,000, which hold the loop for 0.4 s."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Text that cannot be stored reaches a decoded body only through one of these escapes:
# strict UTF-8 has no surrogates, and JSON no raw control characters.
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
# Strings, and what is no bracket between them. Possessive, and the closing quote is
# optional: linear also on unbalanced quotes.
_STRINGS = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?[^"\[\]{}]*+)++', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object that `body` is.

    Raises:
        WireError: 400 for anything else.
    """
    if not body:
        raise _refused("empty_body", "The body is empty.")
    _check_containers(body)
    value = _decode(_text(body))
    if not isinstance(value, dict):
        raise _refused("not_an_object", "The body must be a JSON object.")
    return value


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")  # keeps a byte order mark, which is no JSON
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8 (at byte {error.start})."
        raise _refused("invalid_utf8", detail) from None


def _check_containers(body: bytes) -> None:
    """Refuse deep nesting before a recursive parser sees it, and too many at all."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS)
    depth = 0
    for bracket in brackets[: 2 * MAX_CONTAINERS]:
        depth += 1 if bracket in _OPENING else -1
        if depth > MAX_DEPTH:
            detail = f"The body nests deeper than {MAX_DEPTH}."
            raise _refused("too_deep", detail)
    if len(brackets) > 2 * MAX_CONTAINERS:
        detail = f"The body has more than {MAX_CONTAINERS} arrays and objects."
        raise _refused("too_many_values", detail)


def _decode(text: str) -> Any:
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error.msg} (at character {error.pos})."
        raise _refused("invalid_json", detail) from None
    except ValueError:  # CPython's limit of 4300 digits in an integer
        raise _number_refused() from None
    if _SUSPECT.search(text):
        _check_texts(value, "")
    return value


def _check_texts(value: Any, pointer: str) -> None:
    # A pointer is made for what is refused or goes deeper, not for a million numbers.
    if isinstance(value, dict):
        for name, member in value.items():
            if _UNSTORABLE.search(name):
                raise _text_refused(pointer)
            if _is_suspect(member):
                _check_member(member, f"{pointer}/{_escaped(name)}")
    elif isinstance(value, list):
        for place, member in enumerate(value):
            if _is_suspect(member):
                _check_member(member, f"{pointer}/{place}")


def _is_suspect(member: Any) -> bool:
    if isinstance(member, str):
        return _UNSTORABLE.search(member) is not None
    return isinstance(member, (dict, list))


def _check_member(member: Any, pointer: str) -> None:
    if isinstance(member, str):
        raise _text_refused(pointer)
    _check_texts(member, pointer)


def _text_refused(pointer: str) -> WireError:
    message = "has U+0000 or half of a surrogate pair"
    detail = "The body has text that cannot be stored."
    return _refused("invalid_text", detail, (pointer, message))


def _escaped(name: str) -> str:
    # RFC 6901 § 3; cut, since an answer echoes little of what came in.
    return name[:64].replace("~", "~0").replace("/", "~1")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _refused("duplicate_key", "An object of the body has a name twice.")
    return members


def _real(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _number_refused()
    return number


def _constant(name: str) -> NoReturn:
    raise _refused("invalid_json", f"{name} is not JSON.")


def _number_refused() -> WireError:
    return _refused("invalid_number", "The body has a number out of range.")


def _refused(code: str, detail: str, *errors: tuple[str, str]) -> WireError:
    return WireError(code, detail, errors)


_decoder = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_float=_real,
    parse_constant=_constant,
)
