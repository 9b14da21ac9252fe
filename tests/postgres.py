"""PostgreSQL for the tests: the server's own launcher, databases from a template."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.data_folder import FolderLock
from viva_server.store.embedded import EmbeddedPostgres
from viva_server.store.migrate import load_migrations

TEMPLATE = "viva_template"


def run_sql(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """Run statements on a connection of their own, return the last one's rows."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def data_folder() -> Iterator[Path]:
    """Give a folder that PostgreSQL's user can reach: root's tmp_path is closed."""
    folder = Path(tempfile.mkdtemp(prefix="viva-test-"))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def copy_cluster(source: Path, target: Path) -> None:
    """Copy the cluster of a stopped server; far cheaper than initdb."""
    subprocess.run(["cp", "-a", source / "postgres", target / "postgres"], check=True)


class Relay:
    """A port of 127.0.0.1 that leads to a server, which has a socket only.

    While `is_deaf`, what the server says does not arrive.
    """

    def __init__(self, server: PostgresServer) -> None:
        address = parse_dsn(server.admin_dsn)
        self._path = f"{address['host']}/.s.PGSQL.{address.get('port', '5432')}"
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_deaf = False
        self.port = 0

    def url(self, dsn: str) -> str:
        """Return the way through here to one of the server's databases."""
        return str(make_dsn(dsn, host="127.0.0.1", port=self.port))

    def cut(self) -> None:
        """Break all connections, without a word to either side."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back, forth = await asyncio.open_unix_connection(self._path)
        self._writers |= {writer, forth}
        with suppress(ConnectionError):
            await asyncio.gather(
                self._pass_on(reader, forth), self._pass_on(back, writer, is_back=True)
            )
        self._writers -= {writer, forth}

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        is_back: bool = False,
    ) -> None:
        with closing(sink):
            while data := await source.read(65536):
                if not (is_back and self.is_deaf):
                    sink.write(data)
                    await sink.drain()


@asynccontextmanager
async def relaying(server: PostgresServer) -> AsyncIterator[Relay]:
    """Run a relay to a server."""
    relay = Relay(server)
    listener = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = listener.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        listener.close()
        relay.cut()
        await listener.wait_closed()


class PostgresServer:
    """A PostgreSQL that a test may crash, with databases that have the schema.

    It belongs to the thread that starts it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pg_bin: Path | None = None,
        fast_unsafe: bool = True,
        kind: type[EmbeddedPostgres] = EmbeddedPostgres,
    ) -> None:
        self.folder = folder
        self.server = kind(folder, pg_bin=pg_bin, fast_unsafe=fast_unsafe)
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int | None:
        """The postmaster's process number, None when it does not run."""
        return self.server.pid

    @property
    def admin_dsn(self) -> str:
        """The connection string of the maintenance database."""
        return self.server.dsn

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def crash(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """End it without a checkpoint (SIGQUIT), or without warning (SIGKILL)."""
        assert self.pid is not None
        os.kill(self.pid, number)
        await self.server.wait()

    def dsn(self, database: str) -> str:
        """Return the connection string of one of its databases."""
        return str(make_dsn(self.admin_dsn, dbname=database))

    def add_template(self) -> None:
        """Make the template from schema.sql, recorded as if it had been migrated."""
        schema = resources.files("viva_server.sql") / "schema.sql"
        run_sql(self.admin_dsn, f"CREATE DATABASE {TEMPLATE}")
        run_sql(self.dsn(TEMPLATE), schema.read_text("utf-8"))
        for migration in load_migrations():
            run_sql(self.dsn(TEMPLATE), migration.record)

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """Give the connection string of a fresh database, dropped at the end."""
        name = f"test_{next(self._numbers)}"
        run_sql(self.admin_dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.dsn(name)
        finally:
            if self.pid is not None:
                run_sql(self.admin_dsn, f"DROP DATABASE {name} WITH (FORCE)")


def is_free(folder: Path) -> bool:
    """Tell whether no server has taken the data folder."""
    lock = FolderLock(folder)
    with suppress(EmbeddedPostgresError):
        lock.acquire()
        lock.release()
        return True
    return False
