"""The addresses that a phone number may have on WhatsApp, however it is written."""

from __future__ import annotations

import re

from viva_server.whatsapp.events.addresses import GROUP, LID, PHONE, clean_jid

MAX_CHARS = 255

_BRAZIL = "55"
_LEAST_DIGITS, _MOST_DIGITS = 8, 20
# Brazil's area codes with eight digits, or with the ninth before them.
_BRAZILIAN = re.compile(r"55([1-9][1-9])9?([2-9]\d{7})")


def jids_of(text: str) -> list[str]:
    """Give the jids that are meant by a phone number, or by a jid; none for neither.

    The country may be missing where it is Brazil's, and so may the ninth digit, which
    WhatsApp itself leaves out of older accounts.
    """
    if "@" in text:
        jid = clean_jid(text[:MAX_CHARS])
        is_phone = jid is not None and jid.endswith(PHONE)
        if jid is None or not (is_phone or jid.endswith((LID, GROUP))):
            return []
        return jids_of(jid.removesuffix(PHONE)) if is_phone else [jid]
    digits = re.sub(r"\D", "", text)
    if not _LEAST_DIGITS <= len(digits) <= _MOST_DIGITS or not digits.isascii():
        return []
    local = digits.lstrip("0")
    written = [digits, *([_BRAZIL + local] if len(local) in {10, 11} else [])]
    numbers = dict.fromkeys(n for number in written for n in _forms(number))
    return [f"{number}{PHONE}" for number in numbers] + [f"{digits}{LID}"]


def _forms(number: str) -> list[str]:
    """Give a number, a Brazilian one with and without its ninth digit."""
    if (match := _BRAZILIAN.fullmatch(number)) is None:
        return [number]
    area, rest = match.groups()
    return [number, f"{_BRAZIL}{area}9{rest}", f"{_BRAZIL}{area}{rest}"]
