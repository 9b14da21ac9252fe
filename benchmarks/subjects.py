"""What is measured: the server, its peers, the limit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

MODEL_NAME = "gpt-4o-mini"
JWT_SECRET = "benchmarks-only-benchmarks-only-32"
_PEER_REPLIES = "SELECT content FROM messages WHERE role = 'assistant'"


@dataclass(frozen=True, slots=True)
class Subject:
    """One program that answers the same request; ``{port}`` stands for its port.

    ``stored`` selects the texts of all replies from its database, None where
    nothing is stored.
    """

    name: str
    title: str
    command: tuple[str, ...]
    stored: str | None

    def command_line(self, port: int) -> list[str]:
        return [part.format(port=port) for part in self.command]


def _uvicorn(module: str) -> tuple[str, ...]:
    options = "--loop uvloop --http httptools --no-access-log --log-level warning"
    return (
        *(sys.executable, "-m", "uvicorn", f"benchmarks.peers.{module}:app"),
        *("--port", "{port}", "--backlog", "4096", *options.split()),
    )


def environment(port: int, model_port: int, database_url: str) -> Mapping[str, str]:
    """What every subject is told; the peers read the server's own names."""
    return {
        "VIVA_DATABASE_URL": database_url,
        "VIVA_HOST": "127.0.0.1",
        "VIVA_PORT": str(port),
        "VIVA_JWT_SECRET": JWT_SECRET,
        "VIVA_MODEL_URL": f"http://127.0.0.1:{model_port}/v1",
        "VIVA_MODEL_NAME": MODEL_NAME,
        "VIVA_MODEL_API_KEY": "none",
        "VIVA_LIVE_REPLIES": "4000",
    }


SERVER = Subject(
    "viva",
    "viva_server",
    # The peers write no access log either.
    (
        str(Path(sys.executable).with_name("viva-server")),
        *("serve", "--log-level", "WARNING"),
    ),
    "SELECT content FROM viva.messages WHERE role = 'assistant'",
)
LIMIT = Subject(
    "limit",
    "bare asyncio protocol, nothing stored",
    (sys.executable, "-m", "benchmarks.peers.limit", "{port}"),
    None,
)
PEERS = (
    Subject(
        "openai",
        "FastAPI + SQLAlchemy + openai",
        _uvicorn("fastapi_openai"),
        _PEER_REPLIES,
    ),
    Subject(
        "httpx",
        "FastAPI + SQLAlchemy + httpx",
        _uvicorn("fastapi_httpx"),
        _PEER_REPLIES,
    ),
    Subject(
        "sse_starlette",
        "the same with sse-starlette",
        _uvicorn("fastapi_sse_starlette"),
        _PEER_REPLIES,
    ),
)
SUBJECTS = {subject.name: subject for subject in (SERVER, *PEERS, LIMIT)}
WEBHOOK_PEER = Subject(
    "fastapi",
    "FastAPI + SQLAlchemy, a commit per request",
    _uvicorn("fastapi_webhook"),
    None,
)


def choose(names: Iterable[str], server: str | None) -> list[Subject]:
    """The subjects of those names, with another server's program if one is given.

    Raises KeyError for an unknown name.
    """
    chosen = [SUBJECTS[name] for name in names]
    if server is None:
        return chosen
    other = replace(SERVER, command=(server, "serve"))
    return [other if subject is SERVER else subject for subject in chosen]
