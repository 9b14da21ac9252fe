"""Canaries: secrets that a test gives away, and the search for them in any form."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

_INDEX = re.compile(r'"\d+": ?')


class Canaries:
    """Secrets by kind, each of them found again wherever it turns up."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def __getitem__(self, kind: str) -> str:
        """Give the one secret of a kind, new at the first time.

        The colon and the tilde make its percent-encoded and JSON forms its own.
        """
        if kind not in self._of:
            self._of[kind] = f"canary:{secrets.token_hex(16)}~{len(self._of)}"
        return self._of[kind]

    @property
    def kinds(self) -> list[str]:
        return list(self._of)

    def found_in(self, text: str) -> list[str]:
        """Give the kinds whose secret stands in a text, plain or encoded."""
        # An index map of bytes becomes a list of them.
        texts = [text, _INDEX.sub("", text).replace(", ", ",")]
        return [
            kind
            for kind, secret in self._of.items()
            if any(form in text for form in forms_of(secret) for text in texts)
        ]


def forms_of(secret: str) -> Iterator[str]:
    """Give the forms in which a secret may have got somewhere."""
    # The random part alone: whatever is done to the rest.
    core = secret.partition(":")[2].partition("~")[0]
    yield from {core, core.upper(), core[::-1]}
    yield from {quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    yield secret.encode().hex()
    yield ",".join(str(byte) for byte in core.encode())
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode()
        # Without the ends, which depend on what stands before and behind.
        inner = encoded[4 if shift else 0 : -4]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
