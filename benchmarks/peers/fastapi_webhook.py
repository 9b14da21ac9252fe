"""The webhooks' peer: FastAPI, SQLAlchemy on asyncpg, a commit per request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, mapped_column

from benchmarks.peers import storage


class Event(storage.Base):
    """One webhook, stored before it is acknowledged."""

    __tablename__ = "events"
    key: Mapped[str] = mapped_column(primary_key=True)
    event: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    await storage.create_tables()
    yield
    await storage.engine.dispose()


async def receive(tail: str, body: dict[str, Any]) -> dict[str, Any]:
    """Store the event once, commit, acknowledge."""
    event = body.get("event", tail)
    key = f"{body['instance']}:{event}:{body['data']['key']['id']}"
    row = insert(Event).values(key=key, event=event, body=body)
    async with storage.new_session.begin() as db:
        stored = await db.scalar(row.on_conflict_do_nothing().returning(Event.key))
    return {
        "status": "received",
        "processed": True,
        "event": event,
        "duplicate": stored is None,
    }


app = FastAPI(lifespan=_lifespan)
app.add_api_route("/api/v1/webhook/evolution/{tail:path}", receive, methods=["POST"])
