"""Model text made storable: PostgreSQL takes neither U+0000 nor half a character."""

from __future__ import annotations

_REPLACEMENT = "\ufffd"


class Storable:
    """Makes the deltas of one reply storable, in order; one object per reply.

    U+0000 and lone surrogates become U+FFFD. A surrogate pair that was split over two
    deltas is joined, so a trailing high surrogate waits for the next delta.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, delta: str) -> str:
        """Return what can be stored now; it may be empty."""
        if not self._held and _is_clean(delta):
            return delta
        text = self._held + delta
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held = text[-1]
            text = text[:-1]
        return _repaired(text)

    def flush(self) -> str:
        """Return what is left when the reply has ended: "" or one U+FFFD."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def _is_clean(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def _repaired(text: str) -> str:
    # UTF-16 joins pairs and knows which halves are lone.
    units = text.encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace").replace("\0", _REPLACEMENT)
