"""How many webhooks came in which minute, and how often the database is asked."""

from __future__ import annotations

from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.store.operator import WebhookMinutes

NOW = 29_000_000


def add(url: str, *minutes: int) -> None:
    """Add an event at the very beginning of each minute."""
    for minute in minutes:
        run_sql(
            url,
            "INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind,"
            " answer, trusted, tail, headers, form, body, received_at)"
            " SELECT gen_random_uuid(), sha256(uuid_send(gen_random_uuid())), 'loja',"
            " 'call', true, 'other', false, true, '', '{}', '{}', '{}',"
            f" to_timestamp({minute * 60})",
        )


async def counts(minutes: WebhookMinutes, now: int = NOW) -> dict[int, int]:
    """Give how many came in the minutes in which any came."""
    rates = await minutes.read(now)
    [call] = rates.events
    told = enumerate(call.counts, start=rates.first_minute)
    return {minute - NOW: number for minute, number in told if number}


async def test_the_last_thirty_minutes_are_counted_each_event_in_one(
    database_url: str, database: Database
) -> None:
    add(database_url, NOW - 30, NOW - 29, NOW - 1, NOW, NOW + 1)
    minutes = WebhookMinutes(database)
    assert await counts(minutes) == {-29: 1, -1: 1, 0: 1}
    assert await counts(minutes, NOW + 1) == {-1: 1, 0: 1, 1: 1}


async def test_what_has_passed_is_counted_again_once_a_minute(
    database_url: str, database: Database
) -> None:
    time = 0.0
    minutes = WebhookMinutes(database, clock=lambda: time)
    add(database_url, NOW - 2, NOW - 1, NOW)
    assert await counts(minutes) == {-2: 1, -1: 1, 0: 1}
    add(database_url, NOW - 2, NOW - 1, NOW)
    time = 59.0
    assert await counts(minutes) == {-2: 1, -1: 2, 0: 2}
    time = 61.0
    assert await counts(minutes) == {-2: 2, -1: 2, 0: 2}
