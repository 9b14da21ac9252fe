"""What a new message does, whatever else happens at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from itertools import cycle
from typing import Any

import pytest

from tests.dictation import saying
from tests.integration.chat.looks import (
    count,
    messages,
    slow_inserts,
    waits_for_a_lock,
)
from tests.integration.chat.rooms import (
    ANA,
    Process,
    read_to_end,
    running,
)
from tests.postgres import PostgresServer, relaying, run_sql
from tests.waiting import until
from viva_server.chat.admission import Question, Start
from viva_server.chat.service import Reading, new_turn
from viva_server.errors import (
    ConstraintError,
    KeyReusedError,
    NotFoundError,
    OverloadedError,
    ReplyInProgressError,
    ResponderError,
    TooManyRepliesError,
)
from viva_server.store.driver.database import Database
from viva_server.store.people import Person
from viva_server.store.replies import start_reply
from viva_server.values import new_id


async def _all(asks: list[Awaitable[Any]]) -> tuple[list[Reading], Counter[type]]:
    """Wait for all; give those that were answered and count the refusals by kind."""
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    readings = [each for each in outcomes if isinstance(each, Reading)]
    return readings, Counter(type(e) for e in outcomes if isinstance(e, BaseException))


async def test_fifty_asks_of_one_key_are_one_reply(
    database_url: str, process: Process, other: Process
) -> None:
    turns = zip(range(50), cycle((process, other)), strict=False)
    readings, refusals = await _all([each.ask("Oi", key="um") for _, each in turns])
    assert not refusals
    assert len({reading.message_id for reading in readings}) == 1
    assert sum(not reading.is_resumed for reading in readings) == 1
    model = (process.dictation.replies + other.dictation.replies)[0]
    model.say("uma vez")
    model.end()
    endings = await asyncio.gather(*(read_to_end(reading) for reading in readings))
    assert {text for text, _ in endings} == {"uma vez"}
    assert len(process.dictation.replies + other.dictation.replies) == 1
    assert [m.content for m in messages(database_url, readings[0].session_id)] == [
        "Oi", "uma vez",
    ]  # fmt: skip
    for again in (process, other):
        late = await again.ask("Oi", key="um")
        assert late.is_resumed
        assert (await read_to_end(late))[0] == "uma vez"


async def test_a_key_belongs_to_one_body_of_one_person(process: Process) -> None:
    first = await process.complete("Oi", key="um")
    with pytest.raises(KeyReusedError):
        await process.ask("Outra coisa", key="um")
    with pytest.raises(KeyReusedError):
        await process.ask("Oi", key="um", mode="curto")
    bia = await process.complete("Outra coisa", key="um", person=ANA._replace(id="bia"))
    assert bia.message_id != first.message_id


async def test_two_first_messages_make_one_session(
    database_url: str, process: Process, other: Process
) -> None:
    slow_inserts(database_url, "sessions", 0.2)
    for number in range(3):
        person = ANA._replace(id=f"pessoa {number}")
        readings, refusals = await _all(
            [each.ask(f"Oi {each.id}", person=person) for each in (process, other)]
        )
        assert len(readings) == 1
        assert refusals == Counter([ReplyInProgressError])
        process.chat.leave(readings[0])
    assert count(database_url, "sessions") == 3


async def test_a_persons_limit_is_exact_on_all_processes(
    database_url: str,
) -> None:
    async with (
        running(database_url, live_replies_per_user=3) as process,
        running(database_url, live_replies_per_user=3) as other,
    ):
        sessions = [await process.sessions.add(ANA, None) for _ in range(20)]
        slow_inserts(database_url, "live_replies", 0.2)
        turns = zip(sessions, cycle((process, other)), strict=False)
        readings, refusals = await _all(
            [each.ask("Oi", session_id=session.session_id) for session, each in turns]
        )
        assert refusals == Counter({TooManyRepliesError: 17})
        assert len(readings) == count(database_url, "live_replies") == 3
        await process.chat.stop(ANA, readings[0].message_id)
        empty = next(
            s.session_id
            for s in sessions
            if s.session_id not in {r.session_id for r in readings}
        )
        assert (await other.ask("Oi", session_id=empty)).session_id == empty


async def test_a_processs_limit_is_exact(database_url: str) -> None:
    async with running(database_url, live_replies=3) as process:
        readings, refusals = await _all(
            [process.ask(person=ANA._replace(id=f"pessoa {n}")) for n in range(20)]
        )
        assert refusals == Counter({OverloadedError: 17})
        assert len(readings) == count(database_url, "live_replies") == 3
        person = ANA._replace(id="mais uma")
        with pytest.raises(OverloadedError):
            await process.ask(person=person)
        process.dictation.replies[0].end(ResponderError("upstream_timeout"))
        async with asyncio.timeout(30):
            while len(process.runtime.presence.local) == 3:
                await asyncio.sleep(0.01)
        assert not (await process.ask(person=person)).is_resumed


async def test_seq_has_no_gap_in_twenty_busy_sessions(database_url: str) -> None:
    respond = saying("Olá ", "mundo")
    async with (
        running(database_url, respond) as process,
        running(database_url, respond) as other,
    ):
        persons = [ANA._replace(id=f"pessoa {n}") for n in range(20)]
        await asyncio.gather(
            *(_talk(each, person) for each in (process, other) for person in persons)
        )
    rows = run_sql(
        database_url,
        "SELECT s.message_count, array_agg(m.seq ORDER BY m.seq),"
        " array_agg(DISTINCT m.status) FROM viva.sessions AS s"
        " JOIN viva.messages AS m ON m.session_id = s.id GROUP BY s.id",
    )
    assert len(rows) == 20
    for message_count, seqs, statuses in rows:
        assert seqs == list(range(1, message_count + 1))
        assert message_count == 2 * 6
        assert statuses == ["complete"]
    assert count(database_url, "live_replies") == count(database_url, "journal") == 0


async def _talk(process: Process, person: Any) -> None:
    """Have three turns while another process does the same."""
    done = 0
    while done < 3:
        try:
            reading = await process.ask(f"{done} de {process.id}", person=person)
        except ReplyInProgressError:
            await asyncio.sleep(0.05)
            continue
        await read_to_end(reading)
        process.chat.leave(reading)
        done += 1


async def test_a_turn_is_not_stored_on_what_has_changed_since_the_look(
    database_url: str, process: Process
) -> None:
    reading = await process.complete()
    question = Question(person=ANA, content="Oi")
    stale = new_turn(question, Start(reading.session_id, 0, None), new_id())
    assert await start_reply(process.database, process.id, stale, live_limit=4) is None
    assert len(messages(database_url, reading.session_id)) == 2
    assert count(database_url, "live_replies") == 0


async def test_no_two_replies_take_one_place(
    database_url: str, process: Process
) -> None:
    """However late the second look is."""
    old = await process.complete()
    question = Question.again(ANA, old.message_id, key=None)
    start = Start(old.session_id, 2, old.user_message_id, old.message_id)
    late = new_turn(question, start, new_id())
    new = await process.ask(replaces=old.message_id, content="")
    await process.chat.stop(ANA, new.message_id)
    with pytest.raises(ConstraintError, match="messages_pkey"):
        await start_reply(process.database, process.id, late, live_limit=4)
    assert [m.seq for m in messages(database_url, old.session_id)] == [-1, 1, 2]
    assert count(database_url, "live_replies") == 0


async def test_a_turn_whose_commit_was_not_answered_is_stored_once(
    postgres: PostgresServer, database_url: str, database: Database
) -> None:
    async with (
        relaying(postgres) as relay,
        running(relay.url(database_url)) as process,
    ):
        await process.complete("Oi")
        async with database.transaction() as transaction:
            # Who starts a reply waits for this lock: its look at the session is over.
            await transaction.execute("add_first_session", **new_session(ANA))
            asking = asyncio.create_task(process.ask("E agora?"))
            await until(lambda: waits_for_a_lock(database_url, "live_replies"))
            relay.is_deaf = True
        await until(lambda: count(database_url, "live_replies") == 1)
        assert not asking.done()
        relay.is_deaf = False
        relay.cut()
        reading = await asking
        model = await process.dictation.begun()
        model.say("Agora sim.")
        model.end()
        assert (await read_to_end(reading))[0] == "Agora sim."
        assert not reading.is_resumed
    stored = messages(database_url, reading.session_id)
    assert [m.content for m in stored] == ["Oi", "Olá!", "E agora?", "Agora sim."]


def new_session(person: Person) -> dict[str, Any]:
    return {
        "session_id": new_id(),
        "channel": person.channel,
        "person": person.id,
        "mode": None,
    }


async def test_the_retry_of_a_failed_reply_stores_the_question_once(
    database_url: str, process: Process
) -> None:
    reading, model = await process.begin("Oi")
    model.end(ResponderError("upstream_timeout"))
    await read_to_end(reading)
    process.chat.leave(reading)
    retried = await process.complete("Oi")
    assert retried.user_message_id == reading.user_message_id
    assert [m[1:4] for m in messages(database_url, reading.session_id)] == [
        ("user", "Oi", "complete"),
        ("assistant", "", "failed"),
        ("assistant", "Olá!", "complete"),
    ]
    again = await process.complete("Oi")
    assert again.user_message_id != reading.user_message_id
    assert [m.role for m in process.dictation.replies[-1].conversation.messages] == [
        "user", "assistant", "user",
    ]  # fmt: skip


async def test_a_cursor_resumes_the_newest_reply_to_the_same_text_only(
    process: Process,
) -> None:
    first = await process.complete("Oi")
    cursor: dict[str, Any] = {"cursor_id": first.message_id, "cursor_offset": 2}
    resumed = await process.ask("Oi", **cursor)
    assert resumed.is_resumed
    assert (await read_to_end(resumed))[0] == "á!"
    second = await process.complete("Outra coisa", **cursor)
    assert not second.is_resumed
    third = await process.complete("Oi", **cursor)
    assert third.message_id not in {first.message_id, second.message_id}


async def test_sessions_of_others_are_not_found(process: Process) -> None:
    reading = await process.complete()
    bia = ANA._replace(id="bia")
    for session_id in (reading.session_id, new_id()):
        with pytest.raises(NotFoundError):
            await process.ask(person=bia, session_id=session_id)
    with pytest.raises(NotFoundError):
        await process.chat.stop(bia, reading.message_id)
    with pytest.raises(NotFoundError):
        await process.sessions.delete(bia, reading.session_id)
