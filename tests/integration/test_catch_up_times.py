"""When the catch-up looks for missed messages, and how far back."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.catching import HOUR, Room, connection, running
from tests.waiting import until
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress.inbox import Inbox


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


async def test_what_was_made_up_for_is_not_looked_at_again(room: Room) -> None:
    await room.deliver_first()
    room.age(hours=8)
    catch_up = room.catch_up()
    assert await catch_up.look() == 0
    room.evolution.receive("7 h", at=time.time() - 7 * HOUR, delivers=False)
    room.evolution.receive("50 min", at=time.time() - 3000, delivers=False)

    assert await catch_up.look() == 1


async def test_it_looks_a_little_farther_back_than_it_has_looked(room: Room) -> None:
    for seconds in (200, 60):
        at = time.time() - seconds
        room.evolution.receive(str(seconds), at=at, delivers=False)
    await room.deliver_first()

    await room.catch_up(answerable_seconds=0.0).look()

    assert room.texts() == ["primeira", "60"]


async def test_what_could_not_be_stored_is_looked_for_again(
    room: Room, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    room.evolution.receive("7 h", at=time.time() - 7 * HOUR, delivers=False)
    await room.deliver_first()
    room.age(hours=8)
    catch_up = room.catch_up()
    await room.inbox.close()
    assert await catch_up.look() == 0
    assert "missed messages of" in caplog.text

    catch_up._inbox = Inbox(database)
    assert await catch_up.look() == 1
    await catch_up._inbox.close()


async def test_an_open_webhook_is_made_up_for_like_one_with_a_secret(
    room: Room,
) -> None:
    await room.deliver_first()
    room.evolution.receive("perdida", delivers=False)

    with running(room.catch_up(secret="", is_open=True)):
        await until(lambda: "perdida" in room.texts())


async def asked(room: Room, times: int) -> None:
    """Wait until Evolution was asked so often."""
    await until(lambda: len(room.evolution.requests) >= times)


async def test_each_connection_is_looked_at_once(room: Room) -> None:
    for name in ("a", "b"):
        await room.deliver_first(name)
    catch_up = room.catch_up(connected_seconds=0.01)

    with running(catch_up):
        await asked(room, 2)
        for number, name in enumerate(("a", "b", "b"), start=3):
            catch_up.note(connection("open", name))
            await asked(room, number)
        await asyncio.sleep(0.1)

    names = [path.rpartition("/")[2] for _, path, _ in room.evolution.requests]
    assert sorted(names[:2]) + names[2:] == ["a", "b", "a", "b", "b"]
    assert not catch_up._wake.is_set(), "it would look again and again"


async def test_connections_do_not_put_off_the_look_at_all(room: Room) -> None:
    for name in ("a", "b"):
        await room.deliver_first(name)
    catch_up = room.catch_up(every_seconds=1.0, connected_seconds=0.01)

    def found() -> bool:
        catch_up.note(connection("open", "b"))
        return "depois" in room.texts()

    with running(catch_up):
        await until(lambda: len(room.evolution.requests) == 2)
        room.evolution.receive("depois", instance="a", delivers=False)
        await until(found)


async def test_between_two_looks_it_waits(room: Room) -> None:
    await room.deliver_first()

    with running(room.catch_up(every_seconds=0.3)):
        await until(lambda: len(room.evolution.requests) == 2)
        await asyncio.sleep(0.9)

    assert len(room.evolution.requests) < 10
