"""People: the names under which their data is stored, and the record of its use."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from viva_server.store.driver.database import Database
from viva_server.values import Channel, new_id

_PHONE = "@s.whatsapp.net"
_LID = "@lid"
_NUMBER = re.compile(rf"\+?(\d{{5,20}})({re.escape(_PHONE)}|{_LID})?")

Action = Literal["export", "erase", "purge"]
Counts = dict[str, int]


class Person(NamedTuple):
    """A person on one channel: the JWT's `sub`, or WhatsApp's instance and phone."""

    channel: Channel
    id: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of the web, or of WhatsApp with what deliveries say of it.

    `people` are the names under which it has sessions. `jids` are its addresses at
    `instance`, `learned` those of them that only deliveries tell.
    """

    person: Person
    people: tuple[Person, ...]
    instance: str | None = None
    jids: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()

    @property
    def numbers(self) -> str:
        """The regular expression of PostgreSQL that finds its addresses in a text."""
        return _whole_numbers(self.jids)

    @property
    def learned_numbers(self) -> str:
        """The same for what is learned alone."""
        return _whole_numbers(self.learned)


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
    jid = match[1] + (match[2] or _PHONE)
    people = _people(instance, jid)
    return Subject(people[0], people, instance, (jid,))


async def with_addresses(database: Database, subject: Subject) -> Subject:
    """Add the phone and the lids by which deliveries know the person as well."""
    if subject.instance is None:
        return subject
    rows = await database.fetch(
        "find_addresses", instance=subject.instance, jids=list(subject.jids)
    )
    found = {row.jid for row in rows if _NUMBER.fullmatch(row.jid)}
    learned = tuple(sorted(found - set(subject.jids)))
    people = [name for jid in learned for name in _people(subject.instance, jid)]
    return replace(
        subject,
        people=(*subject.people, *people),
        jids=(*subject.jids, *learned),
        learned=learned,
    )


def _people(instance: str, jid: str) -> tuple[Person, ...]:
    """Name the sessions of an address; without a phone the lid stands in its place."""
    digits = jid.partition("@")[0]
    names = [digits, jid] if jid.endswith(_LID) else [digits]
    return tuple(Person("whatsapp", f"{instance}/{name}") for name in names)


def _whole_numbers(jids: tuple[str, ...]) -> str:
    digits = "|".join(jid.partition("@")[0] for jid in jids)
    return f"(^|[^0-9])({digits})([^0-9]|$)"


def person_hmac(person: Person, secret: str) -> bytes:
    """Return what stands for a person in the record.

    Who has the secret can find out whether somebody whom they know is in it; nobody
    else can, though phone numbers are few enough to be tried out.
    """
    text = f"{person.channel}/{person.id}"
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256)


@asynccontextmanager
async def audited(
    database: Database, action: Action, who: bytes | None, counts: Mapping[str, int]
) -> AsyncIterator[None]:
    """Record that the block began, and with `counts` as they are then that it ended.

    A block that fails, or is killed, stays recorded as begun.
    """
    audit_id = new_id()
    await database.execute(
        "add_audit", audit_id=audit_id, action=action, person_hmac=who
    )
    yield
    await database.execute("finish_audit", audit_id=audit_id, counts=dict(counts))
