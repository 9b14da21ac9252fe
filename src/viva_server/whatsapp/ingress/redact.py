"""Take out of a body what must not be stored: credentials, keys, media bytes.

Bytes come in four forms (base64, Buffer objects, index maps, data URIs); each leaves
its size and SHA-256. Credentials leave a word only.
"""

from __future__ import annotations

import binascii
import hashlib
import math
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from viva_server.whatsapp.events.json_values import MAX_DEPTH, TOO_DEEP, Object

REMOVED = "(removed)"

_MAX_INTEGER = 10**300

_CREDENTIALS = frozenset(
    {
        "apikey",
        "api_key",
        "authorization",
        "creds",
        "jwt",
        "jwt_key",
        "pairingcode",
        "password",
        "secret",
    }
)
_KEY_MATERIAL = frozenset(
    {
        "advsecretkey",
        "appstatesynckeyshare",
        "axolotlsenderkeydistributionmessage",
        "enciv",
        "encpayload",
        "fastratchetkeysenderkeydistributionmessage",
        "keydata",
        "mediakey",
        "messagesecret",
        "noisekey",
        "senderkeydistributionmessage",
        "signedidentitykey",
        "signedprekey",
    }
)
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
