"""A reply of a turn and what is sent of it are stored together or not at all."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.people import (
    PHONE,
    add_live_reply,
    add_process,
    add_sessions,
    add_turns,
    receive,
    rows,
    written,
)
from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.store.driver.link import Result
from viva_server.store.replies import ClosedReply
from viva_server.values import FinishReason, Status
from viva_server.whatsapp.conversation.outbox import close_turn_replies


class Killed(Database):
    """A database whose user is killed behind the first statement."""

    is_dead = False

    async def _run_query(self, name: str, parameters: dict[str, object]) -> Result:
        if self.is_dead:
            raise InterruptedError
        self.is_dead = True
        return await super()._run_query(name, parameters)


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        ("complete", "stop", ("answered", ["waiting"])),
        ("partial", "upstream_error", ("running", [])),
    ],
)
async def test_a_kill_behind_the_closing_finds_what_is_to_be_sent(
    database: Database,
    database_url: str,
    status: Status,
    reason: FinishReason,
    outcome: tuple[str, list[str]],
) -> None:
    await receive(database, [written("oi")])
    add_turns(database_url, "", state="running")
    [session] = add_sessions(database_url, f"loja/{PHONE}", channel="whatsapp")
    reply = add_live_reply(database_url, "ana", session, "Resposta")
    run_sql(database_url, f"UPDATE viva.whatsapp_turns SET reply_id = '{reply}'")
    [[owner]] = rows(database_url, "SELECT CAST(owner AS text) FROM viva.live_replies")
    ending = ClosedReply(
        message_id=reply,
        text="Resposta",
        status=status,
        finish_reason=reason,
        error_code=None,
        error_is_final=False,
    )
    killed = Killed(database_url)
    await killed.open()
    with suppress(InterruptedError):
        await close_turn_replies(killed, owner, [ending])
    await killed.close()

    stored = f"SELECT status FROM viva.messages WHERE id = '{reply}'"
    assert rows(database_url, stored) == [(status,)]
    [[state]] = rows(database_url, "SELECT state FROM viva.whatsapp_turns")
    sends = [row[0] for row in rows(database_url, "SELECT state FROM viva.outbox")]
    assert (state, sends) == outcome


async def test_a_chat_that_somebody_works_on_is_nobody_elses(
    database: Database, database_url: str
) -> None:
    await receive(database, [written("oi")])
    due = "UPDATE viva.whatsapp_chats SET due_at = now()"
    run_sql(database_url, due)
    owners = add_process(database_url), add_process(database_url)
    assert await database.fetch("claim_chats", owner=owners[0], chats=9)
    # A message that comes in mid-turn makes it due again.
    run_sql(database_url, due)
    assert await database.fetch("claim_chats", owner=owners[1], chats=9) == []
