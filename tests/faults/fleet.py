"""Servers as processes on one database: started, killed, frozen, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psycopg2.extensions

from tests.fakes.model import FakeModel
from tests.postgres import run_sql
from viva_server.auth import JwtAuth

SECRET = "a secret of the fault tests that is long enough for HS256"
_ROOT = Path(__file__).parents[2]
_START_SECONDS = 40.0
_POLL_SECONDS = 0.02
_START_TO_JUDGE_SECONDS = 5.2
_LISTENING = re.compile(r"Listening on http://[^\s:]+:(\d+)")


def token_for(user: str) -> str:
    """Sign a token that every server of the tests takes."""
    return JwtAuth((SECRET,)).issue(user, 24 * 3600.0)


def url_of(dsn: str) -> str:
    """Give a libpq DSN as the URL that a deployment would have."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    host = parts["host"].replace("/", "%2F")
    port = f"&port={parts['port']}" if "port" in parts else ""
    return f"postgresql:///{parts['dbname']}?host={host}&user={parts['user']}{port}"


class Server:
    """One `viva-server serve`. Its log is a file; it is ended by its own pid only.

    `armed` are failpoints and mutants of `tests.faults.armed`, which then stands in
    front of the same command. With `is_piped` the log goes through a pipe of 4 KiB to
    a reader of its own, `log_reader`, which may be stopped.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Mapping[str, str],
        armed: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self.port = 0
        self.listens_since = 0.0
        self.owner = ""
        """The id under which it first registered, as its fleet learnt it."""
        self.settings = {"VIVA_PORT": "0", **settings}
        self._armed = armed
        self._prefix = prefix
        self.is_piped = False
        self._process: subprocess.Popen[bytes] | None = None
        self.log_reader: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "started before"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def spawn(self) -> None:
        """Start the process and do not wait for it."""
        command = ["tests.faults.armed", *self._armed] if self._armed else []
        command = command or ["viva_server", "serve"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIVA_")}
        with self.log_file.open("ab") as log, self._pipe_to(log) as sink:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", *command],
                cwd=_ROOT,
                env=environment | self.settings,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    @contextlib.contextmanager
    def _pipe_to(self, log: IO[bytes]) -> Iterator[IO[bytes]]:
        """Give what the process writes to: the log itself, or the pipe before it."""
        if not self.is_piped:
            yield log
            return
        self.log_reader = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True
        )
        assert self.log_reader.stdin is not None
        with self.log_reader.stdin as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
            yield pipe

    async def start(self) -> None:
        """Start the process and wait until it listens.

        Raises:
            RuntimeError: it ended, or does not listen in time.
        """
        known = len(self.log) if self.log_file.exists() else 0
        self.spawn()
        until = time.monotonic() + _START_SECONDS
        while self.is_running and time.monotonic() < until:
            if found := _LISTENING.search(self.log[known:]):
                self.port = int(found[1])
                self.listens_since = time.monotonic()
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise RuntimeError(f"{self.name} does not listen: {self.log[known:][-2000:]}")

    def signal(self, number: int) -> None:
        """Send a signal to this one process."""
        assert self._process is not None, "started before"
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self.signal(signal.SIGKILL)
        await self.exit_code()

    async def exit_code(self, within_seconds: float = 30.0) -> int:
        """Wait for the end; negative for a signal.

        Raises:
            TimeoutError: it goes on for longer.
        """
        assert self._process is not None, "started before"
        async with asyncio.timeout(within_seconds):
            while (code := self._process.poll()) is None:
                await asyncio.sleep(_POLL_SECONDS)
        return code

    @property
    def resident_bytes(self) -> int:
        """The process's memory now (RSS)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def discard(self) -> None:
        """End the process, whatever its state."""
        if self.is_running:
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        if self.log_reader is not None:
            self.log_reader.kill()
            self.log_reader.wait()


class Fleet:
    """Servers with one database and one model."""

    def __init__(self, dsn: str, model: FakeModel | str, folder: Path) -> None:
        self.dsn = dsn
        self._folder = folder
        self._settings = {
            "VIVA_DATABASE_URL": url_of(dsn),
            "VIVA_JWT_SECRET": SECRET,
            "VIVA_MODEL_URL": model if isinstance(model, str) else str(model.url),
            "VIVA_MODEL_NAME": "fake",
            "VIVA_LIVE_REPLIES_PER_USER": "1000",
            "VIVA_WORKER": "0",
        }
        self._numbers = itertools.count(1)
        self.servers: list[Server] = []
        self._one_starts = asyncio.Lock()

    def add(
        self,
        *,
        armed: Sequence[str] = (),
        prefix: Sequence[str] = (),
        **settings: str,
    ) -> Server:
        """Make a server, not started; settings are names without VIVA_, lower case."""
        own = {f"VIVA_{name.upper()}": value for name, value in settings.items()}
        server = Server(
            f"server-{next(self._numbers)}",
            self._folder,
            self._settings | own,
            armed,
            prefix,
        )
        self.servers.append(server)
        return server

    async def start(
        self, count: int = 1, *, armed: Sequence[str] = (), **settings: str
    ) -> list[Server]:
        """Start servers with the same settings."""
        servers = [self.add(armed=armed, **settings) for _ in range(count)]
        for server in servers:
            await self.run(server)
        return servers

    async def run(self, server: Server) -> None:
        """Start a server, anew if it had ended, and learn its owner's id."""
        async with self._one_starts:
            await server.start()
            newest = "SELECT id FROM viva.processes ORDER BY started_at DESC LIMIT 1"
            server.owner = str(run_sql(self.dsn, newest)[0][0])

    @property
    def running(self) -> list[Server]:
        return [server for server in self.servers if server.is_running]

    async def may_judge(self, but: Server | None = None) -> None:
        """Wait until a server, other than `but`, has run for so long that it judges."""
        judges = [server for server in self.running if server is not but]
        first = min(server.listens_since for server in judges)
        await asyncio.sleep(first + _START_TO_JUDGE_SECONDS - time.monotonic())

    def close(self) -> None:
        """End all servers that still run."""
        for server in self.servers:
            server.discard()


@contextlib.asynccontextmanager
async def fleet_of(
    dsn: str, model: FakeModel | str, folder: Path
) -> AsyncIterator[Fleet]:
    """Give a fleet without servers yet; all are ended at the end."""
    fleet = Fleet(dsn, model, folder)
    try:
        yield fleet
    finally:
        fleet.close()
