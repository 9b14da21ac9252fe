"""Sessions and messages of the peers: SQLAlchemy's ORM, async, on asyncpg."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers.settings import DATABASE_URL, POOL_SIZE

HISTORY_MESSAGES = 20
engine = create_async_engine(
    DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_size=POOL_SIZE,
    max_overflow=0,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The root of the peers' tables."""


class ChatSession(Base):
    """A conversation of one person."""

    __tablename__ = "sessions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    user_id: Mapped[str] = mapped_column(index=True)
    message_count: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), onupdate=func.now()
    )


class Message(Base):
    """One message of a conversation."""

    __tablename__ = "messages"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sessions.id"), index=True)
    seq: Mapped[int]
    role: Mapped[str]
    content: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


async def create_tables() -> None:
    """Create what is missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def start_reply(user_id: str, text: str) -> tuple[uuid.UUID, list[Message]]:
    """Commit the user's message; give the session and the history for the model."""
    async with new_session.begin() as db:
        chat = await _newest_session(db, user_id)
        chat.message_count += 1
        db.add(_message(chat, "user", text))
        await db.flush()
        newest = (
            select(Message)
            .where(Message.session_id == chat.id)
            .order_by(Message.seq.desc())
            .limit(HISTORY_MESSAGES)
        )
        history = list(await db.scalars(newest))
    return chat.id, history[::-1]


async def finish_reply(session_id: uuid.UUID, text: str) -> Message:
    """Commit the whole reply."""
    async with new_session.begin() as db:
        chat = await db.get_one(ChatSession, session_id, with_for_update=True)
        chat.message_count += 1
        message = _message(chat, "assistant", text)
        db.add(message)
    return message


async def _newest_session(db: AsyncSession, user_id: str) -> ChatSession:
    newest = (
        select(ChatSession)
        .where(ChatSession.user_id == user_id)
        .order_by(ChatSession.updated_at.desc())
        .limit(1)
        .with_for_update()
    )
    chat = await db.scalar(newest)
    if chat is None:
        chat = ChatSession(id=uuid.uuid4(), user_id=user_id, message_count=0)
        db.add(chat)
    return chat


def _message(chat: ChatSession, role: str, text: str) -> Message:
    return Message(session_id=chat.id, seq=chat.message_count, role=role, content=text)
