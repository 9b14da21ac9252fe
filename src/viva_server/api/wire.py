"""What goes over the wire, checked: JSON, ids, texts, queries; no I/O.

The Portuguese names are those of the system that this one replaces. The pointers of
errors are JSON pointers (RFC 6901) into the body, or begin with /query/ or /headers/.

The JSON decoder is strict: an object, without anything that readers disagree on.
RFC 8259 leaves duplicate names (§ 4), the size of numbers (§ 6) and lone surrogates
(§ 8.2) to the reader, and PostgreSQL stores neither U+0000 nor lone surrogates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from viva_server.api.problems import Problem

MAX_MODO_CHARS = 32
MAX_DEPTH = 64
MAX_CONTAINERS = 10_000
"""Arrays and objects; 1 MiB has room for 500,000, which hold the loop for 0.4 s."""

Modo = Annotated[str, Meta(max_length=MAX_MODO_CHARS)]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[datetime, Meta(tz=True)]
Seq = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]

Pairs = Iterable[tuple[str, str]]
"""Names and values in the order in which they came, such as `request.query.items()`."""

_NOT_FOUND = {"session": "session_not_found", "message": "message_not_found"}
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_NUMBER = re.compile(r"(-?)0*([0-9]+)")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Text that cannot be stored reaches a decoded body only through one of these escapes:
# strict UTF-8 has no surrogates, and JSON no raw control characters.
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
# Strings, and what is no bracket between them. Possessive, and the closing quote is
# optional: linear also on unbalanced quotes.
_STRINGS = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?[^"\[\]{}]*+)++', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")


to_json = msgspec.json.Encoder().encode


def known_id(text: str, kind: Literal["session", "message"], pointer: str = "") -> str:
    """Return an id in its canonical form.

    Raises:
        Problem: 404, the same as for an id that does not exist: no uuid, no row.
    """
    if not is_id(text):
        raise not_found(kind, pointer)
    return text.lower()


def is_id(text: str) -> bool:
    """Whether a text is an id: a uuid as PostgreSQL writes it, in any case."""
    return _ID.fullmatch(text) is not None


def optional_session_id(text: str | None, pointer: str) -> str | None:
    """Return the canonical id, or None for none; raise Problem as `known_id`."""
    return None if text is None else known_id(text, "session", pointer)


def not_found(kind: Literal["session", "message"], pointer: str = "") -> Problem:
    """Make the one answer for an id that is unknown, foreign or none."""
    errors = [(pointer, "is not known")] if pointer else ()
    return Problem(_NOT_FOUND[kind], f"There is no such {kind}.", errors=errors)


def text_errors(
    body: dict[str, Any], name: str, most: int, *, required: bool = False
) -> list[tuple[str, str]]:
    """Say what is wrong with a text; one that is `required` may not be blank either."""
    pointer, value = f"/{name}", body.get(name)
    if value is None:
        return [(pointer, "is required")] if required else []
    if not isinstance(value, str):
        return [(pointer, "must be a text")]
    if len(value) > most:
        return [(pointer, f"must have at most {most} characters")]
    if required and not value.strip():
        return [(pointer, "must not be blank")]
    return []


def type_errors(
    body: dict[str, Any], name: str, kind: type, message: str
) -> list[tuple[str, str]]:
    """Say `message` of a member that is there and not of its kind."""
    value = body.get(name)
    return [] if value is None or isinstance(value, kind) else [(f"/{name}", message)]


def refuse(errors: Sequence[tuple[str, str]]) -> None:
    """Raise Problem 422 if there are errors."""
    if errors:
        raise invalid(errors)


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """Make the 422 for members of a body."""
    detail = "The body has members that cannot be taken."
    return Problem("validation_error", detail, errors=errors)


def single_values(pairs: Pairs) -> dict[str, str]:
    """Return a query's parameters; raise Problem 400 if one stands twice."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise bad_query(name, "stands more than once")
        values[name] = value
    return values


def query_number(values: dict[str, str], name: str) -> int | None:
    """Read a whole number; raise Problem 400 for anything else."""
    if (text := values.get(name)) is None:
        return None
    if (match := _NUMBER.fullmatch(text)) is None:
        raise bad_query(name, "must be a whole number")
    # int() refuses texts above 4300 digits; 12 are more than any limit here.
    return int(match[1] + match[2][:12])


def clamped(value: int | None, default: int, most: int) -> int:
    """Bring a number between 1 and `most`."""
    return default if value is None else max(1, min(value, most))


def bad_query(name: str, message: str) -> Problem:
    """Make the 400 for a parameter that cannot be taken."""
    errors = [(f"/query/{name[:64]}", message)]
    detail = "The query has a parameter that cannot be taken."
    return Problem("bad_query", detail, errors=errors)


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object that `body` is.

    Raises:
        Problem: 400 for anything else.
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


def _text_refused(pointer: str) -> Problem:
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


def _number_refused() -> Problem:
    return _refused("invalid_number", "The body has a number out of range.")


def _refused(code: str, detail: str, *errors: tuple[str, str]) -> Problem:
    return Problem(code, detail, errors=errors)


_decoder = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_float=_real,
    parse_constant=_constant,
)
