"""What Evolution has stored is read in every version, and its answers not trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.evolution import INSTANCE, FakeEvolution, Generation
from viva_server.errors import EvolutionError
from viva_server.whatsapp.evolution.catch_up import MAX_ROWS, PAGE_ROWS, stored_messages
from viva_server.whatsapp.evolution.client import EvolutionClient

NOW = datetime.now(UTC)


@pytest.fixture
async def evolution() -> AsyncIterator[FakeEvolution]:
    async with FakeEvolution() as running:
        yield running


@pytest.fixture
async def client(evolution: FakeEvolution) -> AsyncIterator[EvolutionClient]:
    client = EvolutionClient(evolution.url, evolution.api_key)
    yield client
    await client.close()


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["message"]["conversation"] for row in rows]


@pytest.mark.parametrize("generation", ["1", "2"])
async def test_stored_messages_come_oldest_first_and_not_older_than_asked(
    generation: Generation, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = generation
    count = PAGE_ROWS * 2 + 7
    for number in range(count):
        at = (NOW - timedelta(seconds=count - number)).timestamp()
        evolution.receive(str(number), at=at, delivers=False)
    evolution.receive("same second", at=NOW.timestamp() - 1, delivers=False)

    rows = await stored_messages(client, INSTANCE, NOW - timedelta(seconds=60))

    wanted = [str(number) for number in range(count - 60, count)]
    assert texts(rows) == [*wanted, "same second"]


async def test_2_0_which_does_not_look_by_time_gives_the_same(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.filters_by_time = False
    for number in range(PAGE_ROWS * 3):
        at = (NOW - timedelta(minutes=PAGE_ROWS * 3 - number)).timestamp()
        evolution.receive(str(number), at=at, delivers=False)

    rows = await stored_messages(client, INSTANCE, NOW - timedelta(minutes=70.5))

    assert len(rows) == 70
    assert len(evolution.requests) == 2


async def test_an_endless_store_is_read_to_a_limit(
    evolution: FakeEvolution, client: EvolutionClient, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MAX_ROWS + 10):
        evolution.receive(str(number), delivers=False)

    rows = await stored_messages(client, INSTANCE, NOW - timedelta(days=1))

    assert len(rows) == MAX_ROWS
    assert texts(rows)[-1] == str(MAX_ROWS + 9)
    assert "the oldest are left" in caplog.text


async def test_bytes_of_stored_messages_are_left_behind(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    thumbnail = {str(index): 7 for index in range(3000)}
    message = {"imageMessage": {"caption": "foto", "jpegThumbnail": thumbnail}}
    evolution.receive("", message=message, delivers=False)

    (row,) = await stored_messages(client, INSTANCE, NOW - timedelta(days=1))

    image = row["message"]["imageMessage"]
    assert image["caption"] == "foto"
    assert image["jpegThumbnail"]["size"] == 3000


@pytest.mark.parametrize(
    "answer", [b"null", b'"x"', b"{}", b'{"messages":[1]}', b"{", b"[" * 10_000]
)
async def test_a_strange_store_is_an_error_of_ours(
    answer: bytes, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.answers["chat/findMessages"] = answer

    with pytest.raises(EvolutionError, match="strange_answer"):
        await stored_messages(client, INSTANCE, NOW)


@pytest.mark.parametrize(
    "records", [b"[]", b'[null,1,"x",[],{}]', b'[{"key":7,"messageTimestamp":{}}]']
)
async def test_what_is_no_message_is_left_out(
    records: bytes, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.answers["chat/findMessages"] = b'{"messages":{"records":%s}}' % records

    assert await stored_messages(client, INSTANCE, NOW) == []


async def test_evolution_go_stores_nothing_that_can_be_asked_for(
    evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = "go"

    with pytest.raises(EvolutionError, match="not_found"):
        await stored_messages(client, INSTANCE, NOW)


@pytest.mark.parametrize("settings", [None, {"url": "http://x", "enabled": True}])
async def test_the_webhooks_settings_are_told(
    settings: dict[str, Any] | None, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.settings[INSTANCE] = settings

    assert await client.webhook_settings(INSTANCE) == settings


@pytest.mark.parametrize("generation", ["1", "2"])
async def test_the_instances_are_told(
    generation: Generation, evolution: FakeEvolution, client: EvolutionClient
) -> None:
    evolution.generation = generation
    evolution.only = {"b", "a"}

    assert await client.instances() == ["a", "b"]


async def test_a_wrong_key_is_an_error_of_ours(evolution: FakeEvolution) -> None:
    client = EvolutionClient(evolution.url, "wrong")

    for asking in (client.instances(), client.webhook_settings(INSTANCE)):
        with pytest.raises(EvolutionError, match="unauthorized"):
            await asking
    await client.close()
