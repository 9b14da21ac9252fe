"""A process keeps the connection and the lock that say that it lives."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.postgres import run_sql
from tests.waiting import until
from viva_server.chat import ownership as module
from viva_server.chat.ownership import Ownership
from viva_server.store.driver.database import Database


@pytest.fixture
async def ownership(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ownership]:
    """A process that beats, does nothing else, and keeps what is silent."""
    monkeypatch.setattr(module, "KEPT_SECONDS", 300.0)
    fences: list[None] = []
    ownership = Ownership(database, on_fenced=lambda: fences.append(None))
    await ownership.start()
    yield ownership
    await ownership.stop()
    assert fences == []


def _row(dsn: str, process_id: str) -> tuple[int, int, bool]:
    """Give a living process's lock's key, its heartbeats, and whether it is locked."""
    ((key, beats, is_locked),) = run_sql(
        dsn,
        "SELECT p.lock_key, p.beats, EXISTS (SELECT FROM pg_locks AS l"
        " WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND"
        " CAST(l.classid AS bigint) << 32 | CAST(l.objid AS bigint) = p.lock_key)"
        f" FROM viva.processes AS p WHERE p.id = '{process_id}' AND p.dead_at IS NULL",
    )
    return key, beats, is_locked


async def _beats_on(dsn: str, process_id: str) -> None:
    _, before, _ = _row(dsn, process_id)
    await until(lambda: _row(dsn, process_id)[1] > before)


async def test_a_silent_connection_is_left_for_another_and_its_lock_till_then(
    database_url: str, ownership: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.5)
    assert ownership._connection is not None
    row = await ownership._connection.fetch_one("backend")
    assert row is not None
    key, *_ = _row(database_url, ownership.id)
    os.kill(row.pid, signal.SIGSTOP)
    try:
        await until(lambda: _row(database_url, ownership.id)[0] != key)
        await _beats_on(database_url, ownership.id)
        assert _row(database_url, ownership.id)[2]
    finally:
        os.kill(row.pid, signal.SIGCONT)
    await _beats_on(database_url, ownership.id)
    assert not ownership.detector.is_pooled


async def test_a_lock_that_is_lost_is_taken_again_once(
    database_url: str, ownership: Ownership
) -> None:
    """The first time is a lost race of two connections, the second a pooler's doing."""
    lose = f"UPDATE viva.processes SET lock_key = 1 WHERE id = '{ownership.id}'"
    run_sql(database_url, lose)
    await until(lambda: _row(database_url, ownership.id)[2])
    assert not ownership.detector.is_pooled
    run_sql(database_url, lose)
    await until(lambda: ownership.detector.is_pooled)
    await until(lambda: _row(database_url, ownership.id)[0] is None)
    run_sql(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    # A new connection may hold a lock again.
    await until(lambda: _row(database_url, ownership.id)[2])
    await until(lambda: not ownership.detector.is_pooled)
