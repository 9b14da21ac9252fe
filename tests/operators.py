"""What operators ask a server for."""

from __future__ import annotations

from typing import Any

from tests.chat_host import Answer, Host, Person, token

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
