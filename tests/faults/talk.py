"""Persons who talk to a fleet, come back when they are cut, and note it all."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.model import FakeModel
from tests.faults.client import Shown, Stream, ask, call, resume
from tests.faults.fleet import Server
from tests.faults.history import History, ModelRun, Stored
from tests.postgres import run_sql

_AGAIN_SECONDS = 0.1
_connections = itertools.count(1)


def pick(servers: Sequence[Server]) -> Server:
    """Choose a server, as a balancer without health checks does."""
    return random.choice(servers)


class Talk:
    """One message of a person, asked until its reply has ended.

    The message is posted with a key; once its reply is known the client comes back by
    the resume URL, on any server. `name` is the client's in the history.
    """

    def __init__(
        self,
        history: History,
        servers: Callable[[], Sequence[Server]],
        *,
        person: str,
        text: str,
        key: str | None = None,
    ) -> None:
        self.history = history
        self.name = f"{person}/{next(_connections)}"
        self.person = person
        self.text = text
        self.key = key or f"key of {self.name}"
        self.message_id = ""
        self.cursor = ""
        self.last: Shown | None = None
        self.has_text = asyncio.Event()
        self.cuts = 0
        self.seen = 0
        self._servers = servers

    async def run(self, within_seconds: float = 60.0) -> Talk:
        """Ask, and read to the end; `last` stays None if that takes too long."""
        facts = {"person": self.person, "text": self.text, "key": self.key}
        self.history.add(self.name, "invoke", "chat", **facts)
        try:
            async with asyncio.timeout(within_seconds):
                while self.last is None:
                    await self._once()
        except TimeoutError:
            self.history.add(self.name, "info", "chat", why="time")
        else:
            assert self.last is not None
            self.history.add(self.name, "ok", "chat", last=self.last.data)
        return self

    async def _once(self) -> None:
        """Read one connection to its end, whatever that is."""
        try:
            stream = await self._connect()
        except OSError:
            await asyncio.sleep(_AGAIN_SECONDS)
            return
        connection = next(_connections)
        try:
            async for shown in stream.events():
                self._note(connection, shown)
        finally:
            stream.leave()
            how = stream.ended if stream.status in {0, 200} else "refused"
            facts: dict[str, Any] = {"connection": connection, "status": stream.status}
            self.history.add(self.name, "ev", "closed", how=how, **facts)
        if self.last is None:
            self.cuts += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _connect(self) -> Stream:
        server = pick(self._servers())
        if self.message_id:
            return await resume(server, self.person, self.message_id, self.cursor)
        return await ask(server, self.person, self.text, Idempotency_Key=self.key)

    def _note(self, connection: int, shown: Shown) -> None:
        data = shown.data
        facts: dict[str, Any] = {"connection": connection, "message": self.message_id}
        if "accepted" in data:
            self.message_id = facts["message"] = data["message_id"]
            facts["user_message"] = data["user_message_id"]
            facts["offset"] = data["offset"]
            self.history.add(self.name, "ev", "accepted", **facts)
        elif "content" in data:
            facts["offset"], facts["text"] = int(shown.offset), data["content"]
            self.history.add(self.name, "ev", "content", **facts)
            self.seen = facts["offset"]
            self.has_text.set()
        elif "done" in data:
            facts |= {name: data[name] for name in ("status", "sha256", "chars")}
            self.history.add(self.name, "ev", "done", **facts)
        elif "error" in data:
            self.history.add(self.name, "ev", "error", **facts, code=data["code"])
        if shown.is_last:
            self.last = shown
        elif shown.id is not None:
            self.cursor = shown.id


async def look(history: History, server: Server, person: str) -> list[Stored]:
    """Read a snapshot and note it."""
    history.add(f"snapshot of {person}", "invoke", "snapshot", person=person)
    answer = await call(server, "GET", "/viva/chat/snapshot?limit=250", user=person)
    roles = {"usuario": "user", "ia": "assistant"}
    messages = [
        Stored(
            person=person,
            session_id=answer.json["session_id"],
            seq=m["seq"],
            id=m["id"],
            role=roles[m["tipo"]],
            text=m["conteudo"],
            status=m["status"],
            finish_reason=m["finish_reason"],
        )
        for m in answer.json["messages"]
    ]
    facts = {"person": person, "messages": messages}
    history.add(f"snapshot of {person}", "ok", "snapshot", **facts)
    return messages


def dump(dsn: str) -> list[Stored]:
    """Read all messages of the web from the database."""
    rows = run_sql(
        dsn,
        "SELECT s.person, m.session_id::text, m.seq, m.id::text, m.role, m.content,"
        " m.status, m.finish_reason FROM viva.messages AS m"
        " JOIN viva.sessions AS s ON s.id = m.session_id WHERE s.channel = 'web'",
    )
    names = Stored.__slots__
    return [Stored(**dict(zip(names, row, strict=True))) for row in rows]


def runs_of(model: FakeModel) -> list[ModelRun]:
    """Give what the model saw.

    A question without an answer stands before the next one, behind a blank line.
    """
    return [
        ModelRun(
            question=request.message.rpartition("\n\n")[2],
            text=request.text,
            began=request.started_at,
            ended=request.closed_at or float("inf"),
            is_whole=request.ended == "complete" and not request.script.cut,
        )
        for request in model.requests
    ]


async def quiet(dsn: str, within_seconds: float = 30.0) -> float:
    """Wait until no reply is live; give the seconds that it took.

    Raises:
        TimeoutError: one stays live.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_seconds):
        while live_replies(dsn):
            await asyncio.sleep(0.05)
    return loop.time() - began


def live_replies(dsn: str, owner: str | None = None) -> int:
    """Count the live replies, of one owner or of all."""
    where = "" if owner is None else f" WHERE owner = '{owner}'"
    return int(run_sql(dsn, f"SELECT count(*) FROM viva.live_replies{where}")[0][0])


def close_history(history: History, dsn: str, model: FakeModel) -> History:
    """Add what is there after quiescence."""
    history.stored = dump(dsn)
    asked = {
        event.facts["text"] for event in history.of("chat") if event.kind == "invoke"
    }
    history.runs = [run for run in runs_of(model) if run.question in asked]
    return history
