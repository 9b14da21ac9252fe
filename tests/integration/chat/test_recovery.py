"""Who counts as dead, and that nothing of what the dead had shown is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import count, journal, message
from tests.integration.chat.owners import Owner
from tests.integration.chat.rooms import Process, read, running
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat.ownership import Ownership
from viva_server.ids import new_id
from viva_server.store.db import Database
from viva_server.store.processes import (
    FROZEN_SECONDS,
    LATE_SECONDS,
    beat,
    bury,
    sweep,
)
from viva_server.store.replies import load_owned


async def _found(database: Database, late: float, frozen: float) -> list[str]:
    rows = await database.fetch(
        "find_silent_processes",
        process_id=new_id(),
        sole=False,
        late_seconds=late,
        frozen_seconds=frozen,
    )
    return [row.id for row in rows]


def test_the_limits_are_those_of_the_contract() -> None:
    assert (LATE_SECONDS, FROZEN_SECONDS) == (1.0, 15.0)


async def test_nobody_is_looked_at_soon_after_a_start_of_the_database(
    database_url: str, database: Database, owner: Owner
) -> None:
    owner.silent_for(database_url, 3600)
    ((age,),) = run_sql(
        database_url,
        "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())",
    )
    assert await _found(database, LATE_SECONDS, float(age) + 3600) == []
    assert await _found(database, LATE_SECONDS, float(age)) == [owner.id]


async def test_who_beats_is_not_looked_at(database: Database, owner: Owner) -> None:
    assert await beat(owner.connection, owner.id)
    assert await _found(database, 60.0, 0.0) == []


@pytest.mark.parametrize(
    ("silent_seconds", "is_locked", "dies"),
    [
        (0.0, False, False),
        (2.0, True, False),
        (2.0, False, True),
        (14.0, True, False),
        (16.0, True, True),
    ],
)
async def test_a_free_lock_and_a_second_or_fifteen_seconds_are_a_death(
    database_url: str,
    database: Database,
    owner: Owner,
    silent_seconds: float,
    is_locked: bool,
    dies: bool,
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    if not is_locked:
        await owner.connection.close()
        await until(lambda: not owner.holds_lock(database_url))
    owner.silent_for(database_url, silent_seconds)
    closed = await bury(database, owner.id, sole=False)
    assert closed == ([message_id] if dies else None)
    expected = ("visto", "partial", "crashed") if dies else ("", "streaming", None)
    assert message(database_url, message_id)[2:] == expected
    assert await load_owned(database, owner.id) == (set() if dies else {message_id})


async def test_a_process_that_reconnects_judges_nobody_for_a_while(
    database_url: str, database: Database, owner: Owner
) -> None:
    async with running(database_url) as process:
        ownership: Ownership = process.runtime.ownership
        assert _may_judge(process)
        run_sql(database_url, _CUT_ALL)
        await until(lambda: ownership.connects == 2)
        assert not _may_judge(process)
        owner.silent_for(database_url, 3600)
        await process.runtime.recovery._look(sole=False)
        await process.runtime.recovery._look(sole=True)
        assert not run_sql(database_url, _DEAD)
        ownership._connected_at -= FROZEN_SECONDS
        assert _may_judge(process)
        await process.runtime.recovery._look(sole=True)
        assert run_sql(database_url, _DEAD) == [(owner.id,)]


def _may_judge(process: Process) -> bool:
    return process.runtime.ownership.may_judge


_CUT_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_DEAD = "SELECT CAST(id AS text) FROM viva.processes WHERE dead_at IS NOT NULL"


async def test_a_sole_process_closes_at_its_start_what_is_there(
    database_url: str, database: Database, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    async with running(database_url, is_sole=True) as process:
        assert message(database_url, message_id).finish_reason == "crashed"
        assert process.runtime.recovery.closed == 1
        assert process.runtime.recovery.buried == 1
        # Whoever comes later is judged as by any other process.
        later = Owner(database, await database.connect())
        await later.register()
        await asyncio.sleep(0.5)
        assert run_sql(database_url, _DEAD) == [(owner.id,)]
        await later.connection.close()


async def test_a_process_takes_its_lock_again_on_a_new_connection(
    database_url: str, process: Process, other: Process
) -> None:
    assert _locks(database_url) == 2
    run_sql(database_url, _CUT_ALL)
    for each in (process, other):
        await _reconnected(each)
    await until(lambda: _locks(database_url) == 2)
    assert process.runtime.recovery._task is not None
    assert not process.runtime.recovery._task.done()


async def _reconnected(process: Process) -> None:
    await until(lambda: process.runtime.ownership.connects == 2)


def _locks(dsn: str) -> int:
    """Count the processes that hold a lock of their own."""
    ((number,),) = run_sql(
        dsn,
        "SELECT count(DISTINCT p.id) FROM viva.processes AS p JOIN pg_locks AS l"
        " ON CAST(l.classid AS bigint) << 32 | CAST(l.objid AS bigint) = p.lock_key"
        " WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted",
    )
    return int(number)


async def test_an_id_is_made_when_a_process_starts(database: Database) -> None:
    ownership = Ownership(database, on_fenced=lambda: None)
    made = ownership.id
    await ownership.start()
    assert ownership.id != made
    await ownership.stop()


async def test_a_process_sweeps_when_it_has_started_and_not_all_the_time(
    database_url: str, owner: Owner
) -> None:
    late = new_id()
    await owner.append(late, 0, "tarde")
    async with running(database_url):
        await until(lambda: not journal(database_url, late))
        await owner.append(late, 0, "mais tarde")
        await asyncio.sleep(0.5)
        assert journal(database_url, late)


async def test_text_of_closed_replies_is_swept_and_live_text_stays(
    database_url: str, database: Database, owner: Owner
) -> None:
    live, closed = await owner.start_reply(), new_id()
    await owner.append(live, 0, "fica")
    await owner.append(closed, 0, "tarde demais")
    await sweep(database)
    assert journal(database_url, live) == [(0, "fica")]
    assert journal(database_url, closed) == []


async def test_the_dead_are_remembered_for_a_day(
    database_url: str, database: Database, owner: Owner
) -> None:
    await bury(database, owner.id, sole=True)
    await sweep(database)
    assert count(database_url, "processes") == 1
    assert not await beat(owner.connection, owner.id)
    run_sql(
        database_url,
        "UPDATE viva.processes SET dead_at = dead_at - interval '25 hours'",
    )
    await sweep(database)
    assert count(database_url, "processes") == 0


async def test_who_leaves_in_order_is_gone(
    database_url: str, database: Database, process: Process
) -> None:
    async with running(database_url) as leaving:
        reading, model = await leaving.begin()
        model.say("até aqui")
        await read(reading, 8)
        leaving.chat.leave(reading)
    assert message(database_url, reading.message_id)[2:] == (
        "até aqui", "partial", "shutdown",
    )  # fmt: skip
    rows = run_sql(database_url, "SELECT CAST(id AS text) FROM viva.processes")
    assert rows == [(process.id,)]
