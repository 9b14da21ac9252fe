"""The record of what was done with people's data."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from viva_server.ids import new_id
from viva_server.store.driver.database import Database
from viva_server.store.people import Person

Action = Literal["export", "erase", "purge"]
Counts = dict[str, int]


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
