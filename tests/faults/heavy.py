"""Bodies of webhooks that are heavy to read, each in a way of its own."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable

_HEAD = b'{"event":"%s","instance":"loja","data":'
_ROW = {
    "key": {"id": "3EB0", "remoteJid": "5511988887777@s.whatsapp.net", "fromMe": False},
    "message": {"conversation": "oi, tudo bem?"},
    "messageTimestamp": 1761048603,
}


def _array(event: bytes, member: bytes, size: int) -> bytes:
    count = max(1, size // (len(member) + 1))
    return _HEAD % event + b"[" + b",".join([member] * count) + b"]}"


def media(size: int) -> bytes:
    """A photo or video of about so many bytes of JSON, in base64."""
    raw = os.urandom(3 * 2**16) * (size // 2**18 + 1)
    text = base64.b64encode(raw)[: size // 4 * 4]
    key = b'{"key":{"id":"%s","remoteJid":"5511988887777@s.whatsapp.net"}'
    key %= os.urandom(8).hex().encode()
    return _HEAD % b"messages.upsert" + key + b',"message":{"base64":"%s"}}}' % text


def history(size: int) -> bytes:
    """A chunk of a history sync: small messages, by the hundred thousand."""
    return _array(b"messages.set", json.dumps(_ROW).encode(), size)


def index_map(size: int) -> bytes:
    """Bytes as {"0": 255, "1": 216, …}, as Evolution 2.3.6 and later sends them."""
    pairs = (f'"{i}":{i % 256}' for i in range(size // 15))
    thumbnail = "{" + ",".join(pairs) + "}"
    message = b'{"message":{"imageMessage":{"jpegThumbnail":%s}}}}'
    return _HEAD % b"messages.upsert" + message % thumbnail.encode()


def thumbnails(size: int) -> bytes:
    """Many messages, each with a small index map."""
    key = json.dumps({str(i): i for i in range(32)}).encode()
    return _array(b"messages.set", b'{"message":{"k":%s}}' % key, size)


def wide(size: int) -> bytes:
    """Millions of empty arrays."""
    return _array(b"call", b"[]", size)


def deep(size: int) -> bytes:
    """Arrays in arrays, to the depth that is kept."""
    return _array(b"call", b"[" * 60 + b"]" * 60, size)


def bottomless(size: int) -> bytes:
    """Arrays in arrays, without end."""
    half = size // 2
    return _HEAD % b"call" + b"[" * half + b"]" * half + b"}"


def odd(size: int) -> bytes:
    """Text with half of a surrogate pair, which the fast decoder refuses."""
    return _HEAD % b"call" + b'"\\ud800' + b"a" * size + b'"}'


KINDS: dict[str, Callable[[int], bytes]] = {
    kind.__name__: kind
    for kind in (
        media,
        history,
        index_map,
        thumbnails,
        wide,
        deep,
        bottomless,
        odd,
    )
}
