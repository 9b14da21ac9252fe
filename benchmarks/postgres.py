"""A PostgreSQL of the run's own, durable: fsync is on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.processes import OTHER_CORES, dies_with_parent, free_port, on_cores

UNPRIVILEGED = "nobody"
# Checkpoints of one subject must not fall into the round of another.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of the cluster and of one database."""

    wal_bytes: int
    commits: int


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running cluster."""

    port: int
    pid: int

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement outside any transaction."""
        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def create_database(self, name: str) -> str:
        """Create an empty database and give its address."""
        self.query("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def usage(self, database: str) -> Usage:
        """The counters now; a busy backend reports its commits once a second."""
        ((wal, commits),) = self.query(
            "postgres",
            "SELECT pg_current_wal_lsn() - '0/0', xact_commit "
            f"FROM pg_stat_database WHERE datname = '{database}'",
        )
        return Usage(int(wal), int(commits))


def _programs() -> Path:
    """The folder of PostgreSQL's programs; RuntimeError without one."""
    named = os.environ.get("VIVA_PG_BIN")
    found = shutil.which("initdb")
    folders = [Path(named)] if named else []
    folders += [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("no PostgreSQL found: set VIVA_PG_BIN")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a new cluster in a temporary folder; all of it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="viva-bench-"))
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    try:
        if user:
            shutil.chown(folder, user)
        with on_cores(OTHER_CORES), _serving(_programs(), folder, user) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(programs: Path, folder: Path, user: str | None) -> Iterator[Postgres]:
    data, port = folder / "data", free_port()
    settings = {**SETTINGS, "port": str(port)}
    options = "-U bench -A trust -E UTF8 --locale=C"
    initdb = [str(programs / "initdb"), "-D", str(data), *options.split()]
    subprocess.run(initdb, user=user, cwd=folder, check=True, capture_output=True)
    flags = [f"--{name}={value}" for name, value in settings.items()]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [programs / "postgres", "-D", data, *flags],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=dies_with_parent(signal.SIGINT),  # noqa: PLW1509
        )
    cluster = Postgres(port, child.pid)
    try:
        _wait(cluster, child)
        yield cluster
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)


def _wait(cluster: Postgres, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            cluster.query("postgres", "SELECT 1")
        except psycopg2.OperationalError:
            if child.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
