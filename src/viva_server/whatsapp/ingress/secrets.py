"""Secrets of a webhook: those that it must bring, and those that are never stored.

Evolution signs nothing in any version, so the secret itself, or a token made with it,
travels along, in one of six ways.

Of what is stored, credentials leave a word; media bytes, which come in four forms
(base64, Buffer objects, index maps, data URIs), leave their size and SHA-256. Hardly
any delivery holds a secret of ours, and a look at each of its texts takes as long as
reading it: the JSON is looked at as a whole, and the texts only if need be.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar, cast
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

import jwt
import msgspec

from viva_server.whatsapp.events.json_values import (
    MAX_DEPTH,
    TOO_DEEP,
    Object,
    clean_text,
)

# Evolution mints its token once and sends it with every retry; the last one starts
# up to 23 minutes after its end, and a 401 makes it drop the message for good.
LEEWAY_SECONDS = 1800

_MIN_HS256_BYTES = 32
_CLAIMS = {"app": "evolution", "action": "webhook"}


class Headers(Protocol):
    """Request headers, of which one name may stand several times."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]: ...


class Verdict(Enum):
    """What the credentials before the body say."""

    OPEN = "no secret is configured"
    RIGHT = "the secret was given"
    WRONG = "another secret was given"
    NONE = "none was given; the body's apikey decides"


def judge_request(secrets: Sequence[str], headers: Headers, query: str) -> Verdict:
    """Judge the credentials in headers and query, without the body.

    Args:
        secrets: any of them is right; all are compared, in constant time.
        headers: of the request.
        query: undecoded; Evolution appends its tail to the value of `token`.
    """
    if not secrets:
        return Verdict.OPEN
    authorizations = headers.getall("Authorization", ())
    given = [*_given_in_headers(headers), *_given_in_query(query)]
    given = [value for value in given if value]
    if _any_matches(secrets, given) or _any_verifies(secrets, authorizations):
        return Verdict.RIGHT
    return Verdict.WRONG if given or authorizations else Verdict.NONE


def judge_body(secrets: Sequence[str], body: Object) -> bool:
    """Return whether the body's `apikey` is one of the secrets.

    The global webhook has no headers, so this is its only way.
    """
    given = body.get("apikey")
    return isinstance(given, str) and _any_matches(secrets, [given])


def _any_matches(secrets: Iterable[str], given: Iterable[str]) -> bool:
    candidates = [value.encode("utf-8", "surrogateescape") for value in given]
    # A list, not a generator: the time must not tell which one matched.
    matches = [
        hmac.compare_digest(secret.encode(), candidate)
        for secret in secrets
        for candidate in candidates
    ]
    return any(matches)


def _given_in_headers(headers: Headers) -> Iterator[str]:
    yield from headers.getall("apikey", ())
    for value in headers.getall("Authorization", ()):
        if (bearer := _bearer(value)) is not None:
            yield bearer
        elif (password := _basic_password(value)) is not None:
            # axios 1.7.9 sends the password of a URL as it stands there.
            yield from {password, unquote(password)}


def _given_in_query(query: str) -> Iterator[str]:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if name != "token":
            continue
        for token in {unquote(value), unquote_plus(value)}:
            yield from {token, token.rstrip("/"), token.rpartition("/")[0].rstrip("/")}


def _bearer(value: str) -> str | None:
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else None


def _basic_password(value: str) -> str | None:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(rest.strip().encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return pair.partition(b":")[2].decode("utf-8", "surrogateescape")


def _any_verifies(secrets: Iterable[str], authorizations: Iterable[str]) -> bool:
    tokens = [token for value in authorizations if (token := _bearer(value))]
    verified = [_verifies(secret, token) for secret in secrets for token in tokens]
    return any(verified)


def _verifies(secret: str, token: str) -> bool:
    if token.count(".") != 2:
        return False
    # HMAC pads a short key with zeros itself; done here, PyJWT warns of none.
    key = secret.encode().ljust(_MIN_HS256_BYTES, b"\0")
    try:
        claims = jwt.decode(
            token.encode("utf-8", "replace"),
            key,
            algorithms=["HS256"],
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat"], "verify_aud": False},
        )
    except (jwt.InvalidTokenError, ValueError, ArithmeticError, RecursionError):
        return False
    return all(claims.get(name) == value for name, value in _CLAIMS.items())


REMOVED = "(removed)"

_MAX_INTEGER = 10**300

_CREDENTIALS = frozenset({
    "apikey", "api_key", "authorization", "creds", "jwt", "jwt_key", "pairingcode",
    "password", "secret",
})  # fmt: skip
_KEY_MATERIAL = frozenset({
    "advsecretkey", "appstatesynckeyshare", "axolotlsenderkeydistributionmessage",
    "enciv", "encpayload", "fastratchetkeysenderkeydistributionmessage", "keydata",
    "mediakey", "messagesecret", "noisekey", "senderkeydistributionmessage",
    "signedidentitykey", "signedprekey",
})  # fmt: skip
_BASE64_NAMES = frozenset(
    {"base64", "jpegthumbnail", "pngthumbnail", "thumbnail", "waveform"}
)
_URL_NAMES = frozenset({"destination", "server_url", "serverurl", "webhookurl"})
# Within these events the names mean the code that logs a phone in.
_QR_EVENTS = frozenset({"qrcode.updated", "qrcode"})
_QR_NAMES = frozenset({"code", "qrcode", "base64"})
_TOKEN_EVENTS = frozenset({"new.jwt", "creds.update"})
# A name that is none of these says nothing of its value.
_TELLING = _CREDENTIALS | _KEY_MATERIAL | _BASE64_NAMES | _URL_NAMES | _QR_NAMES
_DATA_URI = re.compile(r"data:[\w/+.;=-]{0,100};base64,", re.IGNORECASE)
_DATA_URI_STARTS = frozenset("dD")


def redact(body: Object, event: str) -> dict[str, object]:
    """Return a copy without them; `event` is the name that was found for the body."""
    if event in _TOKEN_EVENTS and body.get("data") is not None:
        body = {**body, "data": REMOVED}
    is_qr = event.lower().replace("_", ".") in _QR_EVENTS
    return _copy(body, 0, is_qr=is_qr)


class _Name(NamedTuple):
    """What the name of a field says of its value."""

    lower: str
    is_plain: bool


def _name(name: str) -> _Name:
    lower = name.lower()
    return _Name(lower, lower not in _TELLING and not lower.endswith("token"))


# All bodies have the same few names; a name may be as long as a body.
_known_name = lru_cache(maxsize=4096)(_name)
_MAX_KNOWN_CHARS = 64


def _copy(value: Object, depth: int, *, is_qr: bool) -> dict[str, object]:
    copied: dict[str, object] = {}
    for name, item in value.items():
        said = _known_name(name) if len(name) <= _MAX_KNOWN_CHARS else _name(name)
        if not said.is_plain:
            copied[name] = _field(said.lower, item, depth, is_qr)
        elif type(item) is str and item[:1] not in _DATA_URI_STARTS:
            copied[name] = item
        else:
            copied[name] = _value(item, depth + 1, is_qr)
    return copied


def _field(name: str, value: object, depth: int, is_qr: bool) -> object:
    if value is None or isinstance(value, bool):
        return value
    if name in _CREDENTIALS or name.endswith("token"):
        return REMOVED
    if name in _KEY_MATERIAL:
        return {"removed": "key"}
    is_qr = is_qr or name == "qrcode"
    if not isinstance(value, str):
        return _value(value, depth + 1, is_qr)
    if is_qr and name in _QR_NAMES:
        return _removed("qr code", value.encode("utf-8", "replace"))
    if name in _URL_NAMES:
        is_short = len(value) <= _MAX_KNOWN_URL
        value = _known_url(value) if is_short else _without_credentials(value)
    elif name in _BASE64_NAMES:
        return _removed("bytes", _decoded(value))
    return _text(value)


def _value(value: object, depth: int, is_qr: bool) -> object:
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, (dict, list)):
        return _storable_number(value)
    if depth >= MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, list):
        return [_value(item, depth + 1, is_qr) for item in value]
    if (raw := _bytes_of(value)) is not None:
        return _removed("bytes", raw)
    return _copy(value, depth, is_qr=is_qr)


def _text(value: str) -> object:
    if value[:5].lower() == "data:" and _DATA_URI.match(value):
        return _removed("bytes", _decoded(value))
    return value


def _storable_number(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return None
    return value


def _bytes_of(value: Object) -> bytes | None:
    """Return the bytes of a Buffer object or of an index map."""
    if value.get("type") == "Buffer" and "data" in value:
        data = value["data"]
        return _decoded(data) if isinstance(data, str) else _packed(data)
    if len(value) < 4 or "0" not in value:
        return None
    try:
        return _packed([value[str(index)] for index in range(len(value))])
    except KeyError:
        return None


def _packed(numbers: object) -> bytes | None:
    if not isinstance(numbers, list):
        return None
    try:
        return bytes(numbers)
    except (TypeError, ValueError):
        return None


def _decoded(text: str) -> bytes:
    text = _DATA_URI.sub("", text, count=1)
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        return text.encode("utf-8", "replace")


def _removed(what: str, raw: bytes) -> dict[str, object]:
    digest = hashlib.sha256(raw).hexdigest()
    return {"removed": what, "size": len(raw), "sha256": digest}


def _without_credentials(url: str) -> str:
    """Return a URL without userinfo, query and fragment, where secrets stand."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return REMOVED
    host = parts.netloc.rpartition("@")[2]
    query = REMOVED if parts.query else ""
    return urlunsplit((parts.scheme, host, parts.path.rpartition("@")[2], query, ""))


# All bodies of an instance name the same two or three.
_known_url = lru_cache(maxsize=256)(_without_credentials)
_MAX_KNOWN_URL = 512


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
