"""Whose data: a person in all places where something of it is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from viva_server.store.db import Database
from viva_server.store.people import Person

_PHONE = "@s.whatsapp.net"
_LID = "@lid"
_NUMBER = re.compile(rf"\+?(\d{{5,20}})({re.escape(_PHONE)}|{_LID})?")


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of the web, or of WhatsApp with what deliveries say of it.

    `people` are the names under which it has sessions. `jids` are its addresses at
    `instance`, `lids` those of them that only deliveries tell.
    """

    person: Person
    people: tuple[Person, ...]
    instance: str | None = None
    jids: tuple[str, ...] = ()
    lids: tuple[str, ...] = ()

    @property
    def numbers(self) -> str:
        """The regular expression of PostgreSQL that finds its addresses in a text."""
        return _whole_numbers(self.jids)

    @property
    def lid_numbers(self) -> str:
        """The same for its lids alone."""
        return _whole_numbers(self.lids)


def web_subject(user: str) -> Subject:
    """Name a user of the web chat, by the token's `sub`."""
    person = Person("web", user)
    return Subject(person, (person,))


def whatsapp_subject(name: str) -> Subject:
    """Name a person on WhatsApp as INSTANCE/PHONE, or INSTANCE/LID@lid.

    Raises:
        ValueError: it is neither.
    """
    instance, slash, number = name.rpartition("/")
    match = _NUMBER.fullmatch(number)
    if not instance or not slash or match is None:
        raise ValueError("must be INSTANCE/PHONE, the phone in digits")
    digits, domain = match[1], match[2]
    ids = [digits, f"{digits}{_LID}"] if domain == _LID else [digits]
    people = tuple(Person("whatsapp", f"{instance}/{each}") for each in ids)
    # A conversation without a phone has its lid in the place of the phone.
    jids = (digits + (domain or _PHONE),)
    return Subject(people[0], people, instance, jids)


async def with_lids(database: Database, subject: Subject) -> Subject:
    """Add the lids by which deliveries from its chats know the person as well."""
    if subject.instance is None:
        return subject
    rows = await database.fetch(
        "find_lids", instance=subject.instance, jids=list(subject.jids)
    )
    found = {row.lid for row in rows if _NUMBER.fullmatch(row.lid)}
    lids = tuple(sorted(found - set(subject.jids)))
    names = [name for lid in lids for name in (lid, lid.removesuffix(_LID))]
    people = (Person("whatsapp", f"{subject.instance}/{name}") for name in names)
    return replace(
        subject,
        people=(*subject.people, *people),
        jids=(*subject.jids, *lids),
        lids=lids,
    )


def _whole_numbers(jids: tuple[str, ...]) -> str:
    digits = "|".join(jid.partition("@")[0] for jid in jids)
    return f"(^|[^0-9])({digits})([^0-9]|$)"
