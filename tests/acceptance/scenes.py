"""Where the shell's lines of the documents run: what is there before, and after."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from psycopg2.extensions import make_dsn, parse_dsn

from tests.chat_host import SECRET, Person, client, eventually, token
from tests.fakes.model import FakeModel
from tests.faults.fleet import url_of
from tests.postgres import PostgresServer, data_folder, run_sql
from tests.programs import ROOT, Program, free_port, program
from viva_server.store.embedded.programs import find_programs

TABLES = ("sessions", "messages", "inbox", "migrations")
SHELL_SECONDS = 120.0
# A line of the access log; 499 is a client that left.
_REFUSED = re.compile(r" [A-Z]+ \S+ (?!499)[45]\d\d [\d.]+ms")


@dataclass
class Scene:
    """A folder to run in, its variables, and what stands for a text of a document."""

    folder: Path
    variables: dict[str, str]
    stands_for: dict[str, str] = field(default_factory=dict)

    async def run(self, code: str) -> str:
        """Run lines in bash; give what they write.

        Raises:
            AssertionError: one of them fails.
        """
        for text, other in self.stands_for.items():
            code = code.replace(text, other)
        programs = f"{Path(sys.executable).parent}:{find_programs(None)}"
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            code,
            cwd=self.folder,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "no_proxy": "*",
                **self.variables,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SHELL_SECONDS):
            output, _ = await shell.communicate()
        assert shell.returncode == 0, output.decode()
        return output.decode()


@asynccontextmanager
async def serving(**environment: str) -> AsyncIterator[Program]:
    """Run the server with these settings."""
    port = free_port()
    settings = {"VIVA_PORT": str(port), **environment}
    serve = ("-m", "viva_server", "serve")
    async with program(*serve, port=port, environment=settings) as running:
        yield running
        assert await running.stopped() == 0


@asynccontextmanager
async def talking(running: Program) -> AsyncIterator[None]:
    """Have a reply, a webhook and a reply that is live for the time of the block."""
    async with client() as session:
        ana = Person(session, running.origin + "/api/v1")
        answer = await ana.ask("guarde isto")
        assert answer.json["status"] == "complete"
        await ana.post("/webhook/evolution", {"data": {"key": "dummy"}})
        async with ana.stream("e isto model:tokens=2,interval_ms=60000") as stream:
            await stream.event()
            await stream.event()
            yield


def contents(dsn: str) -> list[list[tuple[object, ...]]]:
    """Read all that has to arrive in another database."""
    return [run_sql(dsn, f"SELECT * FROM viva.{name} ORDER BY 1") for name in TABLES]


@contextmanager
def new_database(postgres: PostgresServer) -> Iterator[str]:
    """Give an empty database of a role that does not exist where the data is from."""
    role = "new_owner"
    run_sql(postgres.admin_dsn, f"CREATE ROLE {role} LOGIN")
    try:
        with postgres.database("template0") as dsn:
            name = parse_dsn(dsn)["dbname"]
            run_sql(postgres.admin_dsn, f"ALTER DATABASE {name} OWNER TO {role}")
            yield str(make_dsn(dsn, user=role))
    finally:
        run_sql(postgres.admin_dsn, f"DROP ROLE {role}")


@asynccontextmanager
async def server(
    postgres: PostgresServer, *, is_refused: bool = False
) -> AsyncIterator[Scene]:
    """A running server, with which a person talks by curl, in vain if so said."""
    with postgres.database() as dsn, data_folder() as folder:
        variables = {"VIVA_DATABASE_URL": url_of(dsn), "VIVA_JWT_SECRET": SECRET}
        async with serving(**variables) as running:
            stands_for = {
                "http://127.0.0.1:8080": running.origin,
                "http://localhost:8080": running.origin,
                ".venv/bin/viva-server": "viva-server",
            }
            more = {"BASE": running.origin, "TOKEN": token()}
            yield Scene(folder, variables | more, stands_for)
            refused = _REFUSED.findall(running.output)
            assert is_refused == bool(refused), running.output


@asynccontextmanager
async def databases(postgres: PostgresServer) -> AsyncIterator[Scene]:
    """A database in use, and an empty one that has its content afterwards."""
    with (
        postgres.database() as dsn,
        new_database(postgres) as new,
        data_folder() as folder,
    ):
        url = url_of(dsn)
        async with FakeModel() as model:
            settings = {"VIVA_MODEL_URL": str(model.url), "VIVA_MODEL_NAME": "fake"}
            async with (
                serving(VIVA_DATABASE_URL=url, **settings) as running,
                talking(running),
            ):
                urls = {"VIVA_DATABASE_URL": url, "NEW_DATABASE_URL": url_of(new)}
                yield Scene(folder, urls)
                wanted = contents(dsn)
        snapshot = await _moved(wanted, new)
        live = snapshot["messages"][-1]
        assert (live["status"], live["finish_reason"]) == ("partial", "crashed")
        assert live["conteudo"]


@asynccontextmanager
async def embedded(postgres: PostgresServer) -> AsyncIterator[Scene]:
    """A server with its embedded database, and an empty one of one's own."""
    with new_database(postgres) as new, data_folder() as folder:
        data = folder / "data"
        async with serving(VIVA_DATA_DIR=str(data), VIVA_JWT_SECRET="") as running:
            await _talk_by_its_own_secret(running, data)
            own = f"host={data}/run user=viva dbname=postgres"
            wanted = contents(own)
            urls = {"VIVA_DATA_DIR": str(data), "VIVA_DATABASE_URL": url_of(new)}
            yield Scene(folder, urls)
        await _moved(wanted, new)


async def _talk_by_its_own_secret(running: Program, data: Path) -> None:
    issued = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "viva_server", "token", "--user", "ana"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "VIVA_DATA_DIR": str(data)},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await issued.communicate()
    async with client() as session:
        ana = Person(session, running.origin + "/api/v1")
        ana.headers = {"Authorization": f"Bearer {output.decode().strip()}"}
        assert (await ana.ask("guarde isto")).json["status"] == "complete"


async def _moved(wanted: list[list[tuple[object, ...]]], new: str) -> Any:
    """Compare the content, serve from it; give the snapshot when nothing is live."""
    assert contents(new) == wanted
    settings = {"VIVA_DATABASE_URL": url_of(new), "VIVA_AUTO_MIGRATE": "0"}
    async with serving(**settings) as running, client() as session:
        ana = Person(session, running.origin + "/api/v1")
        snapshot = await eventually(ana.snapshot, lambda s: s["active_reply"] is None)
    kinds = [each["tipo"] for each in snapshot["messages"]]
    assert kinds[:2] == ["usuario", "ia"]
    return snapshot


SCENES: dict[str, Callable[[PostgresServer], AbstractAsyncContextManager[Scene]]] = {
    "server": server,
    "refused": partial(server, is_refused=True),
    "databases": databases,
    "embedded": embedded,
}
