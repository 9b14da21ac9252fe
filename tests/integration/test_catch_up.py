"""What Evolution stored and never delivered gets into the inbox, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from yarl import URL

from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution, Generation
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.config import Config
from viva_server.store.db import Database
from viva_server.whatsapp.catch_up import CatchUp
from viva_server.whatsapp.client import EvolutionClient
from viva_server.whatsapp.delivery import Delivery, make_delivery
from viva_server.whatsapp.inbox import Inbox

SECRET = "a-webhook-secret"
HOUR = 3600.0


@pytest.fixture
async def evolution() -> AsyncIterator[FakeEvolution]:
    async with FakeEvolution() as running:
        yield running


@pytest.fixture
async def inbox(database: Database) -> AsyncIterator[Inbox]:
    inbox = Inbox(database, retry_seconds=0.05)
    yield inbox
    await inbox.close()


@pytest.fixture
async def client(evolution: FakeEvolution) -> AsyncIterator[EvolutionClient]:
    client = EvolutionClient(evolution.url, evolution.api_key)
    yield client
    await client.close()


class Room:
    """A catch-up with its surroundings."""

    def __init__(
        self,
        database: Database,
        database_url: str,
        inbox: Inbox,
        evolution: FakeEvolution,
        client: EvolutionClient,
    ) -> None:
        self.evolution = evolution
        self._database = database
        self._url = database_url
        self._inbox = inbox
        self._client = client

    def catch_up(self, *, secret: str = SECRET, **options: Any) -> CatchUp:
        config = Config(
            webhook_secret=(secret,) if secret else (),
            evolution_url=URL(self.evolution.url),
            evolution_api_key=self.evolution.api_key,
        )
        return CatchUp(config, self._database, self._inbox, self._client, **options)

    async def deliver(self, row: dict[str, Any], instance: str = INSTANCE) -> None:
        """Deliver a stored message as its webhook would."""
        body = {"event": "messages.upsert", "instance": instance, "data": row}
        await self._inbox.add(make_delivery("", "", {}, body, trusted=True))

    async def deliver_first(self, instance: str = INSTANCE) -> None:
        """Make an instance known, by a message that Evolution does not have."""
        key = {"remoteJid": PERSON, "fromMe": False, "id": f"FIRST-{instance}"}
        message = {"conversation": "primeira"}
        await self.deliver({"key": key, "message": message}, instance)

    def rows(self, columns: str = "form->>'text'") -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM viva.inbox ORDER BY id"
        return run_sql(self._url, query)

    def texts(self) -> list[str]:
        return [text for (text,) in self.rows()]

    def age(self, hours: float) -> None:
        """Let all deliveries have come so long ago."""
        change = f"received_at = received_at - interval '{hours} hours'"
        run_sql(self._url, f"UPDATE viva.inbox SET {change} RETURNING id")


@pytest.fixture
def room(
    database: Database,
    database_url: str,
    inbox: Inbox,
    evolution: FakeEvolution,
    client: EvolutionClient,
) -> Room:
    return Room(database, database_url, inbox, evolution, client)


@contextmanager
def running(catch_up: CatchUp) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(catch_up.run())
    try:
        yield task
    finally:
        task.cancel()


@pytest.mark.parametrize("generation", ["1", "2"])
async def test_a_missed_message_is_stored_as_its_webhook_would_have_been(
    generation: Generation, room: Room
) -> None:
    room.evolution.generation = generation
    await room.deliver_first()
    missed = room.evolution.receive("perdida", delivers=False)

    assert await room.catch_up().look() == 1

    columns = "event, instance, chat, message_id, answer, trusted, form->>'text'"
    assert room.rows(columns)[1] == (
        "messages.upsert",
        INSTANCE,
        PERSON,
        missed,
        True,
        True,
        "perdida",
    )


async def test_what_came_by_webhook_is_neither_stored_nor_counted_again(
    room: Room,
) -> None:
    room.evolution.receive("entregue", delivers=False)
    await room.deliver(room.evolution.stored[INSTANCE][0])

    catch_up = room.catch_up()
    assert [await catch_up.look() for _ in range(3)] == [0, 0, 0]

    assert room.rows("form->>'text', deliveries") == [("entregue", 1)]


async def test_a_webhook_that_comes_after_all_is_a_duplicate(room: Room) -> None:
    await room.deliver_first()
    room.evolution.receive("perdida", delivers=False)
    await room.catch_up().look()

    await room.deliver(room.evolution.stored[INSTANCE][0])

    assert room.rows("form->>'text', deliveries")[1:] == [("perdida", 2)]


async def test_many_that_look_at_once_store_each_message_once(room: Room) -> None:
    await room.deliver_first()
    for number in range(230):
        room.evolution.receive(str(number), delivers=False)

    await asyncio.gather(*(room.catch_up().look() for _ in range(4)))

    assert sorted(room.texts()) == sorted([*map(str, range(230)), "primeira"])


async def test_missed_messages_keep_their_times(room: Room) -> None:
    await room.deliver_first()
    first = int(time.time()) - 60
    for number in range(60):
        room.evolution.receive(str(number), at=first + number, delivers=False)

    await room.catch_up().look()

    times = "form->>'text', CAST(form->>'timestamp' AS bigint)"
    assert sorted(room.rows(times)[1:], key=lambda row: row[1]) == [
        (str(number), first + number) for number in range(60)
    ]


async def test_it_looks_as_far_back_as_the_outage_was_long(room: Room) -> None:
    now = time.time()
    for hours in (80.0, 9.0, 7.0):
        at = now - hours * HOUR
        room.evolution.receive(f"{hours}", at=at, delivers=False)
    await room.deliver_first()
    room.age(hours=8)

    await room.catch_up().look()

    assert room.texts() == ["primeira", "7.0"]
    # Too old to be answered, and yet a part of the conversation.
    assert room.rows("answer")[1:] == [(False,)]


async def test_an_outage_of_weeks_is_made_up_for_by_three_days(room: Room) -> None:
    for hours in (80.0, 70.0):
        at = time.time() - hours * HOUR
        room.evolution.receive(f"{hours}", at=at, delivers=False)
    await room.deliver_first()
    room.age(hours=500)

    await room.catch_up().look()

    assert room.texts() == ["primeira", "70.0"]


async def test_without_an_outage_it_looks_as_far_as_messages_are_answered(
    room: Room,
) -> None:
    for minutes in (70, 50):
        at = time.time() - minutes * 60
        room.evolution.receive(f"{minutes}", at=at, delivers=False)
    await room.deliver_first()

    await room.catch_up(answerable_seconds=HOUR).look()

    assert room.texts() == ["primeira", "50"]


async def test_the_outage_is_not_forgotten_while_evolution_is_away(room: Room) -> None:
    room.evolution.receive("7 h", at=time.time() - 7 * HOUR, delivers=False)
    await room.deliver_first()
    room.age(hours=8)
    catch_up = room.catch_up()
    await room.evolution.stop()
    assert await catch_up.look() == 0
    await room.evolution.start()
    await room.deliver_first("another")

    assert await catch_up.look() == 1


async def test_an_own_message_comes_as_a_send(room: Room) -> None:
    await room.deliver_first()
    room.evolution.receive("respondo eu", from_me=True, delivers=False)

    await room.catch_up().look()

    assert room.rows("event, form->>'from_me', answer")[1:] == [
        ("send.message", "true", False)
    ]


async def test_a_message_that_could_not_be_read_is_made_up_for(room: Room) -> None:
    room.evolution.receive("agora sim", delivers=False)
    row = room.evolution.stored[INSTANCE][0]
    await room.deliver({**row, "message": {}})

    assert await room.catch_up().look() == 1


async def test_a_receipt_is_not_taken_for_its_message(room: Room) -> None:
    await room.deliver_first()
    room.evolution.receive("perdida", delivers=False)
    row = room.evolution.stored[INSTANCE][0]
    data = {"keyId": row["key"]["id"], "remoteJid": PERSON, "status": "READ"}
    body = {"event": "messages.update", "instance": INSTANCE, "data": data}
    await room._inbox.add(make_delivery("", "", {}, body, trusted=True))

    assert await room.catch_up().look() == 1


async def test_an_instance_that_never_delivered_is_not_asked_about(room: Room) -> None:
    room.evolution.receive("de outros", instance="other", delivers=False)
    await room.deliver_first()

    await room.catch_up().look()

    asked = [path for _, path, _ in room.evolution.requests]
    assert asked == [f"/chat/findMessages/{INSTANCE}"]


async def test_every_instance_that_delivered_is_looked_at(room: Room) -> None:
    for name in ("b", "a", "ç d", "c"):
        await room.deliver_first(name)
        room.evolution.receive(f"de {name}", instance=name, delivers=False)

    assert await room.catch_up().look() == 4


async def test_one_instance_that_fails_does_not_keep_the_others_waiting(
    room: Room,
) -> None:
    for name in ("a", "b", "c"):
        await room.deliver_first(name)
        room.evolution.receive(f"de {name}", instance=name, delivers=False)
    room.evolution.only = {"a", "c"}

    assert await room.catch_up().look() == 2


def connection(state: str, instance: str = INSTANCE) -> Delivery:
    body = {"event": "connection.update", "instance": instance}
    data = {"instance": instance, "state": state}
    return make_delivery("", "", {}, {**body, "data": data}, trusted=True)


async def test_it_looks_at_the_start_and_again_and_again(room: Room) -> None:
    await room.deliver_first()
    room.evolution.receive("antes", delivers=False)

    with running(room.catch_up(every_seconds=0.05)):
        await until(lambda: "antes" in room.texts())
        room.evolution.receive("depois", delivers=False)
        await until(lambda: "depois" in room.texts())


async def test_it_looks_when_an_instance_connects_again(room: Room) -> None:
    await room.deliver_first()
    catch_up = room.catch_up(connected_seconds=0.01)

    with running(catch_up):
        await until(lambda: room.evolution.requests)
        room.evolution.receive("perdida", delivers=False)
        catch_up.note(connection("connecting"))
        catch_up.note(connection("close"))
        await asyncio.sleep(0.1)
        assert len(room.evolution.requests) == 1
        catch_up.note(connection("open"))
        await until(lambda: "perdida" in room.texts())


async def test_where_nothing_may_be_answered_it_ends_at_once(room: Room) -> None:
    await room.deliver_first()

    await asyncio.wait_for(room.catch_up(secret="").run(), 10)

    assert room.evolution.requests == []


async def test_without_the_database_it_waits_for_the_next_look(
    room: Room, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await room.deliver_first()
    await database.close()

    assert await room.catch_up().look() == 0
    assert "no look for missed messages" in caplog.text
