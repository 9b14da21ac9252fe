"""What operators ask a server for."""

from __future__ import annotations

from typing import Any

from tests.chat_host import Answer, Host, Person, token
from tests.people import rows

BASE = "/viva/operator"


def operator(host: Host) -> Person:
    """Give somebody with a token of scope admin."""
    person = host.person("ops")
    person.headers = {"Authorization": f"Bearer {token('ops', scope='admin')}"}
    return person


async def overview(person: Person) -> Any:
    answer = await person.get(f"{BASE}/overview")
    assert answer.status == 200, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json


async def search(person: Person, phone: object) -> Answer:
    return await person.post(f"{BASE}/messages/search", {"phone": phone})


def add_dead(url: str, number: int) -> None:
    """Add so many deliveries that could not be applied, all of one moment."""
    rows(
        url,
        "INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind,"
        " answer, trusted, tail, headers, form, body, problem)"
        " SELECT gen_random_uuid(), sha256(CAST(CAST(n AS text) AS bytea)), 'loja',"
        " 'messages.update', true, 'status', false, true, '', '{}', '{}', '{}', 'odd'"
        f" FROM generate_series(1, {number}) AS n",
    )


def add_dead_answers(url: str, number: int) -> None:
    """Add so many dead turns and dead parts, of the same moment as `add_dead`."""
    rows(
        url,
        "INSERT INTO viva.whatsapp_turns (id, instance, jid, user_message_id, state,"
        " ended_at) SELECT gen_random_uuid(), 'loja', n || '@lid', gen_random_uuid(),"
        f" 'dead', received_at FROM generate_series(1, {number}) AS n,"
        " (SELECT received_at FROM viva.inbox LIMIT 1) AS i;"
        "INSERT INTO viva.outbox (id, turn_id, instance, jid, text, state, created_at)"
        " SELECT gen_random_uuid(), id, instance, jid, '', 'dead', ended_at"
        " FROM viva.whatsapp_turns",
    )
