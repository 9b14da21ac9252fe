"""What is old goes, whole or not at all; what somebody uses stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.people import (
    LID,
    PHONE,
    TABLES,
    add_live_reply,
    add_sessions,
    add_turns,
    count,
    receive,
    rows,
    written,
)
from tests.postgres import run_sql
from viva_server.config import Config
from viva_server.services import Retention
from viva_server.store.driver.database import Database
from viva_server.store.retention import Purge, was_purged

_QUEUE = ("whatsapp_messages", "whatsapp_turns", "whatsapp_chats")


async def purge(database: Database, **settings: Any) -> dict[str, int]:
    given = {"session_days": None, "inbox_days": 30, **settings}
    purge = Purge(database, **given)
    await purge.run()
    return purge.counts


def age(url: str, days: float) -> None:
    run_sql(
        url,
        f"UPDATE viva.inbox SET received_at = now() - {days} * interval '1 day',"
        f" erased_at = erased_at - {days} * interval '1 day'",
    )


async def test_sessions_without_activity_go_whole_and_others_stay_whole(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", sessions=700, messages=2, idle_days=31)
    add_sessions(database_url, "ana", messages=2500, idle_days=31)
    kept = add_sessions(database_url, "ana", messages=2500, idle_days=29)

    counts = await purge(database, session_days=30)

    assert (counts["sessions"], counts["messages"]) == (701, 700 * 2 + 2500)
    found = rows(
        database_url,
        "SELECT CAST(session_id AS text), count(*) FROM viva.messages GROUP BY 1",
    )
    assert found == [(kept[0], 2500)]
    assert count(database_url, "idempotency_keys") == 1


async def test_without_a_limit_sessions_are_kept(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", idle_days=10_000)

    assert (await purge(database))["sessions"] == 0
    assert count(database_url, "messages") == 2


async def test_a_session_with_a_live_reply_stays(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana", idle_days=31)
    add_live_reply(database_url, "ana", session, "text")

    await purge(database, session_days=30)

    assert all(count(database_url, table) for table in TABLES)


async def test_a_session_that_somebody_writes_in_just_now_stays(
    database: Database, database_url: str
) -> None:
    [session] = add_sessions(database_url, "ana", idle_days=31)
    found = await database.fetch(
        "find_idle_sessions",
        after_id="00000000-0000-0000-0000-000000000000",
        old_seconds=30 * 86_400.0,
        batch=10,
    )
    assert [row.is_idle for row in found] == [True]
    run_sql(database_url, "UPDATE viva.sessions SET updated_at = now()")

    locked = await database.fetch_one(
        "lock_idle_session", session_id=session, old_seconds=30 * 86_400.0
    )
    assert locked is None


async def test_a_session_that_somebody_holds_is_left_for_the_next_time(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", idle_days=31)
    async with database.transaction() as transaction:
        await transaction.fetch("lock_next_session", channel="web", person="ana")
        assert (await purge(database, session_days=30))["sessions"] == 0
    assert (await purge(database, session_days=30))["sessions"] == 1


async def test_deliveries_go_after_thirty_days_with_their_keys(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("old", number=1), written("old", number=2)])
    age(database_url, 31)
    await receive(database, [written("young", number=3)])

    counts = await purge(database)

    assert counts["removed_deliveries"] == 2
    assert rows(database_url, "SELECT form ->> 'text' FROM viva.inbox") == [("young",)]


async def test_content_goes_earlier_where_so_set_and_the_key_stays(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("old", number=1)])
    age(database_url, 8)
    await receive(database, [written("young", number=2)])

    first = await purge(database, inbox_days=7)
    second = await purge(database, inbox_days=7)

    assert (first["emptied_deliveries"], second["emptied_deliveries"]) == (1, 0)
    whole = "SELECT CAST(i AS text) FROM viva.inbox AS i"
    assert "old" not in str(rows(database_url, whole))
    assert "young" in str(rows(database_url, whole))
    assert await receive(database, [written("old", number=1)]) == [False]
    assert "old" not in str(rows(database_url, whole))


async def test_what_was_emptied_has_no_effect_once_it_is_delivered_by_a_trusted_one(
    database: Database, database_url: str
) -> None:
    await receive(database, [replace(written("old"), trusted=False)])
    age(database_url, 8)
    await purge(database, inbox_days=7)
    await receive(database, [written("old")])
    assert count(database_url, "whatsapp_messages") == 0


async def test_of_the_queue_all_goes_that_is_as_old_but_a_running_turn(
    database: Database, database_url: str
) -> None:
    jid = f"{PHONE}@s.whatsapp.net"
    lid = written("old", number=1, chat=f"{LID}@lid", remoteJidAlt=jid)
    await receive(database, [lid, written("sticks", number=2, instance="outra")])
    add_turns(database_url, "old answer")
    run_sql(
        database_url,
        "UPDATE viva.whatsapp_turns SET state = 'running', ended_at = NULL"
        " WHERE instance = 'outra'",
    )
    await purge(database, inbox_days=7)
    assert all(count(database_url, table) == 2 for table in _QUEUE)
    age(database_url, 8)
    run_sql(
        database_url,
        "UPDATE viva.whatsapp_turns SET ended_at = ended_at - interval '8 days'",
    )

    counts = await purge(database, inbox_days=7)

    assert counts["removed_turns"] == 1
    instances = {
        table: rows(database_url, f"SELECT instance FROM viva.{table}")
        for table in _QUEUE
    }
    assert instances == {table: [("outra",)] for table in _QUEUE}
    assert count(database_url, "whatsapp_lids") == 0
    again = written("old", number=1, chat=f"{LID}@lid", remoteJidAlt=jid)
    assert await receive(database, [again]) == [False]
    assert count(database_url, "whatsapp_messages") == 1


async def test_messages_that_wait_for_an_answer_stay_as_long_as_one_may_come(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("waits")])
    age(database_url, 2)
    sent = "UPDATE viva.whatsapp_messages SET sent_at = sent_at - interval '{} days'"
    run_sql(database_url, sent.format(6))
    await purge(database, inbox_days=1)
    assert count(database_url, "whatsapp_messages") == 1

    run_sql(database_url, sent.format(2))
    await purge(database, inbox_days=1)
    assert count(database_url, "whatsapp_messages") == 0


async def test_a_lid_stays_as_long_as_there_is_a_session_that_needs_it(
    database: Database, database_url: str
) -> None:
    run_sql(
        database_url,
        "INSERT INTO viva.whatsapp_lids VALUES"
        f" ('loja', '{LID}@lid', '{PHONE}@s.whatsapp.net')",
    )
    add_sessions(database_url, f"loja/{PHONE}", channel="whatsapp", idle_days=31)
    await purge(database)
    assert count(database_url, "whatsapp_lids") == 1

    await purge(database, session_days=30)
    assert count(database_url, "whatsapp_lids") == 0


async def test_content_may_stay_longer_than_thirty_days(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("old")])
    age(database_url, 40)

    assert (await purge(database, inbox_days=50))["removed_deliveries"] == 0
    assert (await purge(database, inbox_days=35))["removed_deliveries"] == 1


async def test_the_key_of_an_erased_delivery_stays_thirty_days_from_then(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("erased")])
    age(database_url, 29)
    run_sql(database_url, "UPDATE viva.inbox SET erased_at = now()")
    run_sql(database_url, "UPDATE viva.inbox SET received_at = now() - interval '31 d'")
    assert (await purge(database))["removed_deliveries"] == 0

    age(database_url, 31)
    assert (await purge(database))["removed_deliveries"] == 1


async def test_old_records_of_what_was_done_go(
    database: Database, database_url: str
) -> None:
    run_sql(
        database_url,
        "INSERT INTO viva.audit (id, action, started_at) SELECT gen_random_uuid(), a,"
        " now() - d * interval '1 day' FROM (VALUES ('purge', 91), ('purge', 89),"
        " ('erase', 91), ('erase', 1900), ('export', 1900)) AS v (a, d)",
    )
    await purge(database)

    kept = rows(database_url, "SELECT action FROM viva.audit ORDER BY started_at")
    assert kept == [("erase",), ("purge",), ("purge",)]


async def test_a_server_purges_once_a_day_whichever_process_it_is(
    database: Database, database_url: str
) -> None:
    config = Config(retention_days=30)
    processes = [Retention(config, database) for _ in range(3)]

    done = await asyncio.gather(*(process.purge_if_due() for process in processes))
    again = [await process.purge_if_due() for process in processes]

    assert sorted(done) == [False, False, True]
    assert again == [False] * 3
    run_sql(database_url, "UPDATE viva.audit SET started_at = now() - interval '25 h'")
    assert await processes[0].purge_if_due()


async def test_a_purge_that_was_cut_short_is_done_again(
    database: Database, database_url: str
) -> None:
    await purge(database)
    run_sql(database_url, "UPDATE viva.audit SET finished_at = NULL")

    assert not await was_purged(database, 86_400)


async def test_it_begins_by_itself_and_ends_when_told(
    database: Database, database_url: str
) -> None:
    add_sessions(database_url, "ana", idle_days=31)
    retention = Retention(Config(retention_days=30), database, first_seconds=0)
    retention.start()
    async with asyncio.timeout(30):
        while not await was_purged(database, 86_400):
            await asyncio.sleep(0.05)
    await retention.stop()
    await retention.stop()

    assert count(database_url, "sessions") == 0


async def test_an_outage_of_the_database_does_not_end_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database("host=/nowhere")
    retention = Retention(Config(), database, first_seconds=0)
    retention.start()
    async with asyncio.timeout(30):
        while "goes on later" not in caplog.text:
            await asyncio.sleep(0.05)
    await retention.stop()
