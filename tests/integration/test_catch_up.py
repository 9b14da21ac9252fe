"""What Evolution stored and never delivered gets into the inbox, once."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fakes.evolution import INSTANCE, PERSON, Generation
from tests.integration.catching import SECRET, Room
from viva_server.whatsapp.ingress.delivery import make_delivery


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
    await room.inbox.add(make_delivery("", "", {}, body, trusted=True))

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


async def test_no_secret_of_ours_is_stored_with_a_missed_message(room: Room) -> None:
    await room.deliver_first()
    key = room.evolution.api_key
    room.evolution.receive(f"{SECRET} {key}", delivers=False)

    assert await room.catch_up().look() == 1

    assert room.texts()[1] == "(removed) (removed)"
    ((stored,),) = room.rows("CAST(inbox AS text)")[1:]
    assert SECRET not in stored
    assert key not in stored


async def test_a_missed_message_is_trusted_as_a_delivered_one_would_be(
    room: Room,
) -> None:
    await room.deliver_first()
    room.evolution.receive("perdida", delivers=False)

    assert await room.catch_up(secret="").look() == 1

    assert room.rows("trusted")[1:] == [(False,)]
