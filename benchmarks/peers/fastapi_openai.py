"""The first peer: FastAPI, SQLAlchemy on asyncpg, openai, StreamingResponse."""

from __future__ import annotations

from benchmarks.peers.fastapi_app import create_app
from benchmarks.peers.openai_relay import relay
from benchmarks.peers.streaming import respond

app = create_app(relay, respond)
