"""Owners of replies in the database, without a process that acts for them."""

from __future__ import annotations

import secrets

from tests.integration.chat.rooms import ANA
from tests.postgres import run_sql
from viva_server.store.driver.database import Connection, Database
from viva_server.store.processes import Death, Verdict, _close, add_process
from viva_server.store.replies import (
    Chunk,
    FollowedReply,
    NewTurn,
    Started,
    append_chunks,
    start_reply,
)
from viva_server.values import new_id


async def close_now(database: Database, process_id: str) -> list[str] | None:
    """Declare a process dead whatever it does, and close its replies."""
    async with database.transaction() as transaction:
        return await _close(transaction, Verdict(process_id, "found"), None)


async def load_owned(database: Database, owner: str) -> set[str]:
    rows = await database.fetch("load_owned", owner=owner)
    return {row.message_id for row in rows}


async def load_death(database: Database, process_id: str) -> Death | None:
    return await database.fetch_one("load_death", Death, process_id=process_id)


async def follow(database: Database, message_id: str, known: int) -> FollowedReply:
    """Read one reply from `known` characters on, as other processes do."""
    [followed] = await database.fetch(
        "follow_replies", FollowedReply, message_ids=[message_id], known=[known]
    )
    return followed


class Owner:
    """A row of viva.processes, and the connection that holds its lock."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.id = new_id()
        self.lock_key = secrets.randbits(31)
        self.connection = connection
        self.database = database

    def holds_lock(self, dsn: str) -> bool:
        return bool(
            run_sql(
                dsn,
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
                f" AND objid = {self.lock_key}",
            )
        )

    async def register(self) -> None:
        assert await add_process(self.connection, self.id, self.lock_key)

    async def beat(self) -> bool:
        beaten = await self.connection.execute(
            "beat", process_id=self.id, readers=0, keeps_key=True
        )
        return beaten > 0

    async def start_reply(self, person: str = "ana") -> str:
        """Start a reply in a session of its own."""
        session_id, message_id = new_id(), new_id()
        await self.database.execute(
            "add_session", session_id=session_id, channel="web", person=person,
            mode=None,
        )  # fmt: skip
        turn = NewTurn(
            person=ANA._replace(id=person), session_id=session_id, expected_count=0,
            ask=True, user_message_id=new_id(), message_id=message_id, content="Oi",
            title="Oi", mode=None, context_length=None, key=None, body_sha256=b"",
        )  # fmt: skip
        started = await start_reply(self.database, self.id, turn, live_limit=1000)
        assert isinstance(started, Started)
        return message_id

    async def append(self, message_id: str, start: int, text: str) -> None:
        await append_chunks(self.database, self.id, [Chunk(message_id, start, text)])
