"""What the FastAPI peers share: the request, the person, the order of commits."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.responses import Response

from benchmarks.peers import storage
from benchmarks.peers.settings import JWT_SECRET

Relay = Callable[[list[dict[str, str]]], AsyncIterator[str]]
Respond = Callable[[AsyncIterator[str]], Response]
HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
_bearer = HTTPBearer()


class ChatRequest(BaseModel):
    """The body of a POST."""

    mensagem: str = Field(min_length=1, max_length=32_000)
    session_id: uuid.UUID | None = None
    contexto: list[Any] = []


async def current_user(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)],
) -> str:
    """The person whom the token names; async, since a thread would cost more."""
    try:
        claims = jwt.decode(credentials.credentials, JWT_SECRET, ["HS256"])
    except jwt.PyJWTError as error:
        raise HTTPException(401) from error
    return str(claims["sub"])


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    await storage.create_tables()
    yield
    await storage.engine.dispose()


async def reply_events(
    relay: Relay, session_id: uuid.UUID, history: list[storage.Message]
) -> AsyncIterator[str]:
    """The data of each event; ``done`` after the commit of the whole reply."""
    parts: list[str] = []
    messages = [{"role": m.role, "content": m.content} for m in history]
    async for delta in relay(messages):
        parts.append(delta)
        yield json.dumps({"content": delta}, ensure_ascii=False)
    message = await storage.finish_reply(session_id, "".join(parts))
    done = {"done": True, "session_id": str(session_id), "message_id": str(message.id)}
    yield json.dumps(done)


def create_app(relay: Relay, respond: Respond) -> FastAPI:
    """An app that relays by the first and presents its events by the second."""
    app = FastAPI(lifespan=_lifespan)

    async def stream(
        body: ChatRequest, user: Annotated[str, Depends(current_user)]
    ) -> Response:
        session_id, history = await storage.start_reply(user, body.mensagem)
        return respond(reply_events(relay, session_id, history))

    # The annotations of a nested function are strings that FastAPI resolves here.
    app.add_api_route(
        "/api/v1/viva/chat/stream", stream, methods=["POST"], response_model=None
    )
    return app
