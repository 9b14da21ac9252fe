"""WhatsApp's addresses: who wrote, where a reply goes, and what a number may mean.

`addressingMode` is wrong in 2.3.3, 2.3.4 and 2.3.7, so only the suffix counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from viva_server.whatsapp.events.json_values import Object, as_flag, clean_text
from viva_server.whatsapp.events.table import NormalForm

PHONE = "@s.whatsapp.net"
LID = "@lid"
GROUP = "@g.us"
STORY = "status@broadcast"

_BARE = re.compile(r"\+?(\d[\d-]{4,40})")
_PERSON = re.compile(rf"\d{{5,20}}(?:{re.escape(PHONE)}|{LID})")


def clean_jid(value: object) -> str | None:
    """Return a jid without device; None when the value is none.

    2.4 cuts from the colon on, so a device jid may come without its domain.
    """
    return _clean_jid(value.strip()[:255]) if isinstance(value, str) else None


@lru_cache(maxsize=1024)
def _clean_jid(value: str) -> str | None:
    user, at, domain = clean_text(value).partition("@")
    if not at:
        return _bare_jid(user)
    if domain in {"s.whatsapp.net", "lid", "c.us"}:
        user = re.split(r"[:._]", user, maxsplit=1)[0].removeprefix("+")
        domain = "s.whatsapp.net" if domain == "c.us" else domain
    return f"{user}@{domain}" if user else None


def _bare_jid(user: str) -> str | None:
    digits = _BARE.fullmatch(user.partition(":")[0])
    if not digits:
        return None
    # The rule of Evolution's createJid: 18 digits or more, or a dash, is a group.
    is_group = "-" in digits[1] or len(digits[1]) >= 18
    return digits[1] + (GROUP if is_group else PHONE)


def phone_of(jid: str | None) -> str | None:
    """Return the digits of a phone jid."""
    return jid.removesuffix(PHONE) if jid and jid.endswith(PHONE) else None


@lru_cache(maxsize=1024)
def is_person(jid: str | None) -> bool:
    """Return whether the jid is a person's; 0@s.whatsapp.net is WhatsApp itself."""
    return bool(jid and _PERSON.fullmatch(jid))


def _jids(source: Object, *names: str) -> list[str]:
    return [
        jid
        for name in names
        if (value := source.get(name)) is not None
        and (jid := clean_jid(value)) is not None
    ]


def _first(jids: Iterable[str], suffix: str) -> str | None:
    for jid in jids:
        if jid.endswith(suffix):
            return jid
    return None


def _is_shared(chat: str) -> bool:
    """Return whether a chat has other authors than its own jid."""
    return chat.endswith((GROUP, "@broadcast", "@newsletter"))


def put_people(form: NormalForm, key: Object, own: str | None) -> None:
    """Put chat, group, from_me, sender, phone and lid of a message key.

    `own` is the jid of the instance's number, the author of own messages.
    """
    people = put_place(form, key)
    if own and form.get("chat") == own:
        form["self_chat"] = True
    if form["from_me"]:
        put_author(form, [own] if own else [])
    else:
        put_author(form, people)


def put_place(form: NormalForm, key: Object) -> list[str]:
    """Put chat, group and from_me of a message key; gives the jids of who wrote.

    Those of an own message are the chat's.
    """
    from_me = as_flag(key.get("fromMe"))
    remote = clean_jid(key.get("remoteJid"))
    form["from_me"] = from_me
    people = _people(key, remote, from_me=from_me)
    if remote and _is_shared(remote):
        put_chat(form, remote)
    else:
        put_chat(form, _first(people, PHONE) or _first(people, LID) or remote)
    return people


def put_chat(form: NormalForm, chat: str | None) -> None:
    """Put the chat and what its jid tells."""
    form["group"] = bool(chat and chat.endswith(GROUP))
    if chat:
        form["chat"] = chat
    if chat == STORY:
        form["status"] = True


def _people(key: Object, remote: str | None, *, from_me: bool) -> list[str]:
    if remote and _is_shared(remote):
        return _jids(
            key, "participant", "participantAlt", "participantPn", "senderPn",
            "participantLid", "senderLid",
        )  # fmt: skip
    names = ["remoteJid", "remoteJidAlt", "previousRemoteJid"]
    if not from_me:
        # For an own message these name the author, not the chat.
        names += ["senderPn", "senderLid", "participant", "participantAlt"]
    return _jids(key, *names)


def put_author(form: NormalForm, jids: list[str]) -> None:
    """Put the author; the jids are forms of one person's address."""
    phone_jid, lid = _first(jids, PHONE), _first(jids, LID)
    sender = phone_jid or lid or next(iter(jids), None)
    if sender:
        form["sender"] = sender
    if phone := phone_of(phone_jid):
        form["phone"] = phone
        if lid:
            form["lid"] = lid


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
