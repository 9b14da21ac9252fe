"""What a fault of the database costs while the processes live: a pause, no reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg2.extensions import make_dsn

from tests.integration.chat.looks import count, message, waits_for_a_lock
from tests.integration.chat.rooms import (
    ANA,
    Process,
    held,
    read,
    read_to_end,
    running,
)
from tests.postgres import PostgresServer, Relay, relaying, run_sql
from tests.waiting import until
from viva_server.chat import service
from viva_server.chat.reply import ReaderCutError
from viva_server.errors import (
    OverloadedError,
    ReplyPendingError,
    RowError,
    StoreError,
    StoreRefusedError,
)
from viva_server.store.driver.database import Database
from viva_server.store.replies import load_reply

REPLIES = 50


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """A role that may do what the server does, and loses rights when a test says so."""
    name = f"app_{uuid4().hex[:8]}"
    run_sql(
        database_url,
        f"CREATE ROLE {name} LOGIN;"
        f"GRANT USAGE ON SCHEMA viva TO {name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA viva TO {name}",
    )
    yield name
    run_sql(database_url, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
async def limited(database_url: str, role: str) -> AsyncIterator[Process]:
    """A process with that role."""
    url = str(make_dsn(database_url, user=role))
    async with running(url, live_replies_per_user=2 * REPLIES) as process:
        yield process


@pytest.fixture
async def relay(postgres: PostgresServer) -> AsyncIterator[Relay]:
    async with relaying(postgres) as relay:
        yield relay


@pytest.fixture
async def relayed(relay: Relay, database_url: str) -> AsyncIterator[Process]:
    """A process whose way to the database can be cut."""
    async with running(relay.url(database_url)) as process:
        yield process


def refuse_text(url: str, text: str) -> None:
    """Have a trigger refuse text, with an error that nobody foresees."""
    run_sql(
        url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'no room for %', new.text; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON viva.journal FOR EACH ROW"
        f" WHEN (new.text = '{text}') EXECUTE FUNCTION refuse()",
    )


async def test_a_right_that_is_missing_for_a_while_costs_no_reply(
    database_url: str, role: str, limited: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    persons = [ANA._replace(id=f"pessoa {n}") for n in range(REPLIES)]
    begun = [await limited.begin(person=person) for person in persons]
    for reading, model in begun:
        model.say("antes ")
        await read(reading, 6)
    tables = "viva.journal, viva.messages, viva.live_replies, viva.sessions"
    run_sql(database_url, f"REVOKE INSERT, UPDATE ON {tables} FROM {role}")
    for _, model in begun:
        model.say("depois")
    health = limited.runtime.health
    await until(
        lambda: limited.runtime.journal.stuck_seconds > 2 and not health.is_well
    )
    with pytest.raises(StoreRefusedError):
        await limited.ask(person=ANA._replace(id="late"))
    for _, model in begun[: REPLIES // 2]:
        model.end()
    await asyncio.sleep(0.1)
    run_sql(database_url, f"GRANT INSERT, UPDATE ON {tables} TO {role}")
    for _, model in begun[REPLIES // 2 :]:
        model.end()

    for reading, _ in begun:
        text, ending = await read_to_end(reading)
        assert (text, ending.status, ending.finish_reason) == (
            "depois", "complete", "stop",
        )  # fmt: skip
    await until(lambda: health.is_well and not limited.runtime.journal.stuck_seconds)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) < 10, [record.getMessage() for record in told]
    assert not any(record.exc_info for record in caplog.records)


async def test_a_row_that_is_refused_waits_and_holds_up_no_other(
    database_url: str, database: Database, process: Process
) -> None:
    refuse_text(database_url, "nunca")
    persons = [ANA._replace(id=name) for name in ("ana", "bia", "caio")]
    begun = [await process.begin(person=person) for person in persons]
    async with held(database, process):
        begun[0][1].say("primeiro ")
        await until(lambda: waits_for_a_lock(database_url, "append_chunks"))
        begun[1][1].say("nunca")
        begun[2][1].say("primeiro ")
    assert await read(begun[2][0], 9) == "primeiro "
    begun[1][1].say(" mais")
    begun[1][1].end()
    for number in (0, 2):
        begun[number][1].say("segundo")
        begun[number][1].end()
        await read_to_end(begun[number][0])
    journal = process.runtime.journal
    assert journal.stuck_seconds == 0
    reply = process.runtime.presence.local[begun[1][0].message_id]
    assert journal.held_seconds(reply) > 0
    run_sql(database_url, "DROP TRIGGER refuse ON viva.journal")

    text, ending = await read_to_end(begun[1][0])
    assert (text, ending.finish_reason) == ("nunca mais", "stop")


async def test_a_row_that_is_refused_alone_holds_up_nothing_that_comes_later(
    database_url: str, process: Process
) -> None:
    refuse_text(database_url, "nunca")
    reading, model = await process.begin()
    model.say("nunca")
    await until(lambda: process.runtime.journal._unstored)
    other, other_model = await process.begin(person=ANA._replace(id="bia"))
    other_model.say("texto")
    other_model.end()

    assert (await read_to_end(other))[0] == "texto"
    run_sql(database_url, "DROP TRIGGER refuse ON viva.journal")
    model.end()
    assert (await read_to_end(reading))[0] == "nunca"


async def test_what_can_never_be_stored_costs_its_own_reply(
    database_url: str, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    run_sql(database_url, "ALTER TABLE viva.journal ADD CHECK (text <> 'canário')")
    reading, model = await process.begin()
    model.say("antes ")
    await read(reading, 6)
    model.say("canário")
    with pytest.raises(ReaderCutError):
        await read(reading, 1)
    await until(lambda: message(database_url, reading.message_id).finish_reason)

    stored = message(database_url, reading.message_id)
    assert (stored.content, stored.status) == ("antes ", "partial")
    assert stored.finish_reason == "crashed"
    assert "is cut" in caplog.text
    assert "canário" not in caplog.text


async def test_a_message_that_can_never_be_stored_is_refused_as_such(
    database_url: str, process: Process
) -> None:
    run_sql(database_url, "ALTER TABLE viva.messages ADD CHECK (content <> 'nunca')")
    with pytest.raises(RowError):
        await process.ask("nunca")
    assert count(database_url, "live_replies") == 0
    assert process.runtime.health.is_well


async def test_a_table_that_is_locked_is_seen_without_a_request(
    database: Database, process: Process
) -> None:
    health = process.runtime.health
    blocker = await database.connect(query_seconds=60)
    lock = "BEGIN; LOCK TABLE viva.messages IN ACCESS EXCLUSIVE MODE"
    await blocker.execute_script(lock)
    await until(lambda: not health.is_well)
    await blocker.close()
    await until(lambda: health.is_well)
    await process.complete()


async def test_an_alter_that_waits_behind_a_report_is_seen(
    database: Database, process: Process
) -> None:
    health = process.runtime.health
    report = await database.connect(query_seconds=60)
    await report.execute_script("BEGIN; SELECT count(*) FROM viva.messages")
    altering = await database.connect(query_seconds=60)
    script = "SET lock_timeout = 0; ALTER TABLE viva.messages ADD COLUMN more integer"
    alter = asyncio.create_task(altering.execute_script(script))
    await until(lambda: not health.is_well)
    await report.close()
    await alter
    await until(lambda: health.is_well)
    await altering.close()


async def test_a_process_that_was_declared_dead_in_an_outage_is_ready_after_it(
    database_url: str, role: str, limited: Process
) -> None:
    reading, model = await limited.begin()
    model.say("antes ")
    await read(reading, 6)
    run_sql(database_url, f"REVOKE INSERT ON viva.journal FROM {role}")
    other, other_model = await limited.begin(person=ANA._replace(id="bia"))
    for each in (model, other_model):
        each.say("depois")
    runtime = limited.runtime
    replies = list(runtime.presence.local.values())
    # Together in a batch, or each by itself: both wait.
    await until(lambda: min(map(runtime.journal.held_seconds, replies)) > 1)
    await until(lambda: not runtime.health.is_well)
    dead = limited.id
    run_sql(
        database_url,
        f"UPDATE viva.processes SET dead_at = clock_timestamp() WHERE id = '{dead}'",
    )
    await until(lambda: limited.id != dead)
    run_sql(database_url, f"GRANT INSERT ON viva.journal TO {role}")

    assert runtime.journal.stuck_seconds == 0
    for cut in (reading, other):
        with pytest.raises(ReaderCutError):
            await read_to_end(cut)
    await until(lambda: runtime.health.is_well)
    await limited.complete(person=ANA._replace(id="caio"))


async def test_a_history_that_cannot_be_read_is_waited_for(process: Process) -> None:
    reading = await process.complete()
    session_id = reading.session_id
    loads: list[str] = []
    load = process.database.fetch

    async def failing(query: str, *kind: Any, **parameters: object) -> object:
        if query == "load_history" and len(loads) < 2:
            loads.append(query)
            raise StoreRefusedError
        return await load(query, *kind, **parameters)

    process.database.fetch = failing  # type: ignore[method-assign,assignment]
    again, model = await process.begin("De novo", session_id=session_id)
    model.say("Sim.")
    model.end()

    assert (await read_to_end(again))[0] == "Sim."
    assert len(loads) == 2
    assert len(model.conversation.messages) == 3


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_ASK_SECONDS", 1.0)


async def unanswered(
    url: str, database: Database, relay: Relay, process: Process, **question: Any
) -> BaseException:
    """Ask so that the start is stored and its answer lost; give what was raised."""
    await process.complete("Oi")
    async with database.transaction() as transaction:
        # Who starts a reply waits for this lock: its look at the session is over.
        await transaction.fetch_one("lock_process", process_id=process.id)
        asking = asyncio.create_task(process.ask("E agora?", **question))
        await until(lambda: waits_for_a_lock(url, "live_replies"))
        relay.is_deaf = True
    await until(lambda: count(url, "live_replies") == 1)
    with pytest.raises((ReplyPendingError, OverloadedError, StoreError)) as caught:
        await asking
    return caught.value


@pytest.mark.usefixtures("impatient")
async def test_a_start_without_an_answer_is_pending_and_goes_on(
    database_url: str, database: Database, relay: Relay, relayed: Process
) -> None:
    error = await unanswered(database_url, database, relay, relayed)
    assert isinstance(error, ReplyPendingError)
    relay.is_deaf = False
    relay.cut()
    model = await relayed.dictation.begun()
    model.say("Agora sim.")
    model.end()

    await until(lambda: message(database_url, error.message_id).status == "complete")
    stored = await load_reply(relayed.database, ANA, error.message_id)
    assert stored is not None
    assert stored.text == "Agora sim."
    assert len(relayed.dictation.replies) == 2


@pytest.mark.usefixtures("impatient")
async def test_with_a_key_it_may_be_sent_again_and_is_found(
    database_url: str, database: Database, relay: Relay, relayed: Process
) -> None:
    error = await unanswered(database_url, database, relay, relayed, key="k")
    assert isinstance(error, OverloadedError)
    relay.is_deaf = False
    relay.cut()
    model = await relayed.dictation.begun()
    again = await relayed.ask("E agora?", key="k")
    model.say("Agora sim.")
    model.end()

    assert (await read_to_end(again))[0] == "Agora sim."
    assert len(relayed.dictation.replies) == 2


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_pending_where_nothing_was_sent(
    database_url: str, relay: Relay, relayed: Process
) -> None:
    await relayed.complete("Oi")
    relay.is_deaf = True
    with pytest.raises(OverloadedError):
        await relayed.ask("E agora?")
    relay.is_deaf = False
    relay.cut()
    assert count(database_url, "live_replies") == 0
    assert len(relayed.dictation.replies) == 1
