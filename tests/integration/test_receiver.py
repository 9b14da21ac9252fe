"""From a webhook's body to its row, whatever becomes of who sent it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.integration.gates import Gate
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.errors import StoreUnavailableError
from viva_server.whatsapp.events.json_values import NotJsonObjectError
from viva_server.whatsapp.ingress.delivery import WebhookRequest, WrongSecretError
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies
from viva_server.whatsapp.ingress.inbox import Accepted, Inbox, NotStoredError, Receiver

POST = WebhookRequest(tail="", query="", headers={}, trusted=True)
ASKING = WebhookRequest(
    tail="", query="", headers={}, trusted=True, asked=("right-secret",)
)


@pytest.fixture
async def heavy_bodies() -> AsyncIterator[HeavyBodies]:
    heavy_bodies = HeavyBodies()
    yield heavy_bodies
    await heavy_bodies.close()


@pytest.fixture
def receiver(inbox: Inbox, heavy_bodies: HeavyBodies) -> Receiver:
    return Receiver(inbox, heavy_bodies, answer_seconds=60, awaited_seconds=60)


@pytest.fixture
def impatient(inbox: Inbox, heavy_bodies: HeavyBodies) -> Receiver:
    """A receiver that does not wait for a commit."""
    return Receiver(inbox, heavy_bodies, answer_seconds=0, awaited_seconds=0.05)


def body(number: int, event: str = "messages.upsert", text: str = "oi") -> bytes:
    data = {
        "key": {"remoteJid": "5511988887777@s.whatsapp.net", "id": f"M{number}"},
        "message": {"conversation": text},
    }
    return json.dumps({"event": event, "instance": "a", "data": data}).encode()


def ids(url: str) -> list[str]:
    found = run_sql(url, "SELECT message_id FROM viva.inbox ORDER BY received_at")
    return [message_id for (message_id,) in found]


async def test_the_receipt_tells_what_became_of_it(receiver: Receiver) -> None:
    first = await receiver.receive(body(1), POST)
    assert first == Accepted("messages.upsert", "stored")
    assert await receiver.receive(body(1), POST) == first._replace(outcome="duplicate")


async def test_bodies_are_stored_in_the_order_in_which_they_came(
    receiver: Receiver, database_url: str
) -> None:
    await asyncio.gather(*(receiver.receive(body(n), POST) for n in range(15)))
    assert ids(database_url) == [f"M{n}" for n in range(15)]


async def test_a_caller_that_leaves_at_once_leaves_its_body_to_be_stored(
    receiver: Receiver, database_url: str
) -> None:
    caller = asyncio.create_task(receiver.receive(body(1), POST))
    await asyncio.sleep(0)  # it is handed over, and not read yet
    caller.cancel()
    await until(lambda: ids(database_url) == ["M1"])
    assert caller.cancelled()


async def test_a_body_that_is_none_fails_alone(
    receiver: Receiver, database_url: str
) -> None:
    results = await asyncio.gather(
        receiver.receive(body(1), POST),
        receiver.receive(b"[]", POST),
        receiver.receive(body(2), ASKING),
        receiver.receive(body(3), POST),
        return_exceptions=True,
    )
    kinds = [Accepted, NotJsonObjectError, WrongSecretError, Accepted]
    assert [type(result) for result in results] == kinds
    assert ids(database_url) == ["M1", "M3"]


async def test_others_have_their_turn_between_large_bodies(
    receiver: Receiver, inbox: Inbox, gate: Gate
) -> None:
    gate.opened.clear()
    large = [body(n, text="x" * 60_000) for n in range(6)]
    callers = [asyncio.create_task(receiver.receive(raw, POST)) for raw in large]
    seen = set()
    while inbox.waiting < 4:
        await asyncio.sleep(0)
        seen.add(inbox.waiting)
    assert len(seen) > 2, "all were read in one turn of the loop"
    gate.opened.set()
    assert {receipt.outcome for receipt in await asyncio.gather(*callers)} == {"stored"}


@pytest.mark.parametrize("size", [10, 300 * 1024], ids=["light", "heavy"])
async def test_what_is_not_stored_in_time_is_said_and_stored_later(
    impatient: Receiver, gate: Gate, database_url: str, size: int
) -> None:
    gate.opened.clear()
    with pytest.raises(NotStoredError) as caught:
        await impatient.receive(body(1, text="x" * size), POST)
    assert caught.value.event == "messages.upsert"
    assert isinstance(caught.value.__cause__, TimeoutError)
    gate.opened.set()
    await until(lambda: ids(database_url) == ["M1"])


async def test_what_holds_up_evolution_is_deferred_instead(
    impatient: Receiver, gate: Gate, database_url: str
) -> None:
    gate.opened.clear()
    receipt = await impatient.receive(body(1, "messages.edited"), POST)
    assert receipt == Accepted("messages.edited", "kept")
    gate.is_down = True  # it fails behind the answer, and is tried again
    gate.opened.set()
    await asyncio.sleep(0.1)
    gate.is_down = False
    await until(lambda: len(ids(database_url)) == 1)


@pytest.mark.parametrize("size", [10, 300 * 1024], ids=["light", "heavy"])
async def test_a_full_inbox_and_a_closed_one_say_so(
    receiver: Receiver, inbox: Inbox, gate: Gate, size: int
) -> None:
    gate.is_down = True
    with pytest.raises(NotStoredError):
        await receiver.receive(body(1, text="x" * size), POST)
    gate.is_down = False
    await inbox.close()
    with pytest.raises(NotStoredError) as caught:
        await receiver.receive(body(2, text="x" * size), POST)
    assert isinstance(caught.value.__cause__, StoreUnavailableError)
