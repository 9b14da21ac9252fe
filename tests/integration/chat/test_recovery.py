"""Who counts as dead, and that nothing of what the dead had shown is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.chat.looks import count, journal, message
from tests.integration.chat.owners import (
    Owner,
    close_now,
    follow,
    load_death,
    load_owned,
)
from tests.integration.chat.rooms import ANA, Process, read, running
from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat import recovery
from viva_server.chat.ownership import Ownership
from viva_server.chat.recovery import recovering
from viva_server.chat.reply import ReaderCutError
from viva_server.store.driver.database import Database
from viva_server.store.processes import (
    Death,
    Verdict,
    VerdictKind,
    close_dead,
    sweep,
)
from viva_server.store.replies import load_reply
from viva_server.values import new_id


def _verdict(database_url: str, process_id: str, kind: VerdictKind) -> Verdict:
    """Judge a process by its heartbeat as it is now."""
    ((value,),) = run_sql(
        database_url,
        "SELECT beats || '/' || extract(EPOCH FROM beat_at) FROM viva.processes"
        f" WHERE id = '{process_id}'",
    )
    return Verdict(process_id, kind, value)


@pytest.mark.parametrize(
    ("kind", "is_locked", "beats_on", "dies"),
    [
        ("fast", False, False, True),
        ("fast", True, False, False),
        ("fast", False, True, False),
        ("slow", True, False, True),
        ("slow", False, True, False),
    ],
)
async def test_who_beats_again_or_holds_its_lock_is_not_declared_dead(
    database_url: str,
    database: Database,
    owner: Owner,
    process: Process,
    kind: VerdictKind,
    is_locked: bool,
    beats_on: bool,
    dies: bool,
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    verdict = _verdict(database_url, owner.id, kind)
    if beats_on:
        assert await owner.beat()
    if not is_locked:
        await owner.connection.close()
        await until(lambda: not owner.holds_lock(database_url))
    closed = await close_dead(database, verdict, process.id, lambda: True)
    assert closed == ([message_id] if dies else None)
    expected = ("visto", "partial", "crashed") if dies else ("", "streaming", None)
    assert message(database_url, message_id)[2:] == expected
    assert await load_owned(database, owner.id) == (set() if dies else {message_id})
    death = await load_death(database, owner.id)
    assert death == (Death(process.id, kind) if dies else None)


async def test_a_verdict_that_stands_no_more_when_it_is_used_closes_nothing(
    database_url: str, database: Database, owner: Owner, process: Process
) -> None:
    verdict = _verdict(database_url, owner.id, "slow")
    assert await close_dead(database, verdict, process.id, lambda: False) is None
    assert await load_death(database, owner.id) is None


async def test_a_dead_judge_closes_nothing(
    database_url: str, database: Database, owner: Owner
) -> None:
    verdict = _verdict(database_url, owner.id, "slow")
    assert await close_dead(database, verdict, new_id(), lambda: True) is None
    judge = Owner(database, await database.connect())
    await judge.register()
    async with database.transaction() as transaction:  # somebody closes the judge
        assert await transaction.fetch_one("lock_process", process_id=judge.id)
        assert await close_dead(database, verdict, judge.id, lambda: True) is None
    assert await close_dead(database, verdict, judge.id, lambda: True) == []
    await judge.connection.close()


async def test_of_two_that_judge_each_other_one_dies_at_most(
    database_url: str, database: Database
) -> None:
    for _ in range(20):
        pair = [Owner(database, await database.connect()) for _ in range(2)]
        for each in pair:
            await each.register()
        first, second = (_verdict(database_url, each.id, "slow") for each in pair)
        closed = await asyncio.gather(
            close_dead(database, second, pair[0].id, lambda: True),
            close_dead(database, first, pair[1].id, lambda: True),
        )
        assert None in closed
        for each in pair:
            await each.connection.close()


async def test_a_killed_process_is_closed_by_another(
    database_url: str, database: Database, process: Process, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    detector = process.runtime.ownership.detector
    await until(lambda: detector.silent_seconds(owner.id) > 2.0)
    assert message(database_url, message_id).status == "streaming"  # its lock is held
    await owner.connection.close()
    await until(lambda: process.runtime.recovery.closed, within_seconds=60)
    assert process.runtime.recovery.dead == {"fast": 1}
    assert message(database_url, message_id).status == "partial"
    assert await load_death(database, owner.id) == Death(process.id, "fast")


async def test_who_started_postgresql_closes_what_it_finds_there(
    database_url: str, database: Database, owner: Owner
) -> None:
    message_id = await owner.start_reply()
    await owner.append(message_id, 0, "visto")
    async with recovering(database, is_alone=True):
        assert message(database_url, message_id).finish_reason == "crashed"
        assert await load_death(database, owner.id) == Death(None, "found")
        # Whoever comes later is judged as by any other process.
        later = Owner(database, await database.connect())
        await later.register()
        await asyncio.sleep(0.5)
        assert await load_death(database, later.id) is None
        await later.connection.close()


@pytest.mark.parametrize("chunks", [[(0, "a"), (1, "bc")], [(2, "x")], []])
async def test_a_closed_reply_ends_before_the_first_hole(
    database_url: str, owner: Owner, database: Database, chunks: list[tuple[int, str]]
) -> None:
    """A failover loses a chunk; what was committed behind it belongs elsewhere."""
    message_id = await owner.start_reply()
    for start, text in [*chunks, (7, "depois"), (13, "do buraco")]:
        await owner.append(message_id, start, text)
    whole = "abc" if len(chunks) == 2 else ""
    stored = await load_reply(database, ANA, message_id)
    assert stored is not None
    assert stored.text == whole
    assert (await follow(database, message_id, 7)).text == "depoisdo buraco"
    assert await close_now(database, owner.id) == [message_id]
    assert message(database_url, message_id).content == whole


@pytest.mark.parametrize("ends", [True, False])
async def test_readers_of_a_reply_whose_row_is_lost_are_cut_without_an_ending(
    database_url: str, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """A failover to a standby that had not received it."""
    if not ends:
        monkeypatch.setattr(recovery, "_ORPHAN_SECONDS", 0.2)
    async with running(database_url) as process:
        reading, model = await process.begin()
        model.say("visto")
        await read(reading, 5)
        run_sql(
            database_url,
            f"DELETE FROM viva.messages WHERE id = '{reading.message_id}'",
        )
        if ends:
            model.end()
        with pytest.raises(ReaderCutError):
            await read(reading, 1)
        assert reading.reader.reply.ending is None
        assert process.runtime.presence.local == {}
        process.chat.leave(reading)


_CUT_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_a_process_takes_its_lock_again_on_a_new_connection(
    database_url: str, process: Process, other: Process
) -> None:
    before = _locked(database_url)
    assert before.keys() == {process.id, other.id}
    run_sql(database_url, _CUT_ALL)
    await until(lambda: _locked(database_url).keys() == before.keys())
    assert not set(_locked(database_url).values()) & set(before.values())
    assert not any(task.done() for task in process.runtime.recovery._tasks)


def _locked(dsn: str) -> dict[str, int]:
    """Give the keys of the processes that hold a lock of their own."""
    rows = run_sql(
        dsn,
        "SELECT CAST(p.id AS text), p.lock_key"
        " FROM viva.processes AS p JOIN pg_locks AS l"
        " ON CAST(l.classid AS bigint) << 32 | CAST(l.objid AS bigint) = p.lock_key"
        " WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted",
    )
    return dict(rows)


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
    await close_now(database, owner.id)
    await sweep(database)
    assert count(database_url, "processes") == 1
    assert not await owner.beat()
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
