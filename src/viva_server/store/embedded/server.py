"""A real PostgreSQL as a child process, for those who have none.

The data folder (`VIVA_DATA_DIR`) holds: `lock`, of the one server that may use it;
`postgres`, the cluster; `postgres.log`; `run`, with the socket; `pg-<version>`, a
wheel's programs where the original cannot be reached; generated secrets.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.account import Account, clean_environment
from viva_server.store.embedded.data_folder import (
    FolderLock,
    make_data_folder,
    sync_folder,
)
from viva_server.store.embedded.postmaster import (
    USER,
    ServerLog,
    dsn,
    forget_stranger,
    make_socket_folder,
    read_pid_file,
    remove_socket_folder,
    running_pid,
    socket_folder,
)
from viva_server.store.embedded.programs import (
    find_programs,
    major_version,
    runnable_programs,
)

_POLL_SECONDS = 0.02
_INITDB_SECONDS = 120.0
_START_SECONDS = 120.0  # a crash recovery is part of it
_LEFTOVER_SECONDS = 30.0  # for what a killed server has left behind to end
_FAST_STOP_SECONDS = 10.0
_IMMEDIATE_STOP_SECONDS = 10.0
_DRAFT = "postgres.new-"
_STILL_IN_USE = "pre-existing shared memory block"


class EmbeddedPostgres:
    """One PostgreSQL server on one data folder.

    It listens on a socket only, in a folder that is closed to other users. It runs in
    a session of its own, so Ctrl-C at a terminal does not reach it before the last
    commit. On Linux it stops by itself when the thread that called `start` ends, in
    whatever way (PR_SET_PDEATHSIG): call `start` on an event loop of the main thread.

    Root gives it to the user `postgres`, else `nobody`. With `fast_unsafe` a crash of
    the machine may damage the data: for tests.
    """

    def __init__(
        self, data_dir: Path, *, pg_bin: Path | None = None, fast_unsafe: bool = False
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._pg_bin = pg_bin
        self._fast_unsafe = fast_unsafe
        self._cluster = self.data_dir / "postgres"
        self._socket_folder = socket_folder(self.data_dir)
        self._lock = FolderLock(self.data_dir)
        self._log = ServerLog(self.data_dir / "postgres.log")
        self._account = Account("nobody")
        self._programs = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The connection string (libpq's keywords); the same after each start."""
        return dsn(self._socket_folder)

    @property
    def pid(self) -> int | None:
        """The process number of the running server."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    async def start(self) -> None:
        """Start the server and wait until it is ready; an empty folder is filled first.

        May be called again after the server has ended. A cancellation stops it.

        Raises:
            EmbeddedPostgresError: it cannot run; the sentence says why.
        """
        if self.pid is not None:
            raise EmbeddedPostgresError("this PostgreSQL runs already")
        try:
            self._take_folder()
            await asyncio.to_thread(self._prepare)
            await self._wait_for_leftover()
            if not self._cluster.exists():
                await self._make_cluster()
            await self._run()
        except OSError as error:
            await self.stop()
            raise EmbeddedPostgresError(
                f"cannot use {error.filename or self.data_dir}: {error.strerror}"
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server, open connections cut, and let others use the folder.

        Harmless when it does not run. At a cancellation it goes on stopping by itself,
        and the folder stays taken: call again, or end this process.
        """
        if (process := self._process) is not None:
            await _end(process)
            self._process = None
        if self._lock.held:
            remove_socket_folder(self._socket_folder, self._account)
            self._lock.release()

    async def wait(self) -> int:
        """Wait until the started server has ended, for whatever reason.

        Returns its exit status, negative for a signal; the folder stays taken, and
        `start` may follow. A cancellation leaves the server alone.
        """
        if self._process is None:
            raise EmbeddedPostgresError("this PostgreSQL was not started")
        while (status := self._process.poll()) is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(10 * _POLL_SECONDS)
        return status

    def _take_folder(self) -> None:
        make_data_folder(self.data_dir)
        if not self._lock.held:
            self._lock.acquire()

    def _prepare(self) -> None:
        """Choose the user and the programs; may be abandoned at any point."""
        self._account = account = Account.choose(self._cluster)
        account.require_way_to(self.data_dir)
        version = _cluster_version(self._cluster)
        programs = find_programs(self._pg_bin, version)
        if version is not None:
            _require_version(version, programs, self._cluster)
        self._programs = runnable_programs(programs, account, self.data_dir)

    async def _wait_for_leftover(self) -> None:
        """Let the server of a killed process end; we hold the folder's lock.

        Raises:
            EmbeddedPostgresError: it does not end in time.
        """
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while (pid := running_pid(self._cluster)) is not None:
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"an earlier PostgreSQL still runs in {self.data_dir}: "
                    f"kill -INT {pid} stops it"
                )
            await asyncio.sleep(_POLL_SECONDS)
        forget_stranger(self._cluster)

    async def _make_cluster(self) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        draft = self._new_draft()
        process = self._spawn(self._initdb(draft), signal.SIGKILL)
        try:
            ended = await _wait_until(
                lambda: process.poll() is not None, _INITDB_SECONDS
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its children, too
                process.wait()
        if not ended or process.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed: {self._log.tail()}")
        self._accept(draft)

    def _new_draft(self) -> Path:
        for old in self.data_dir.glob(f"{_DRAFT}*"):
            shutil.rmtree(old, ignore_errors=True)
        # A new name each time: children of a killed initdb may still write to theirs.
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.data_dir))
        self._account.own(draft)
        return draft

    def _accept(self, draft: Path) -> None:
        draft.rename(self._cluster)
        sync_folder(self.data_dir)

    def _initdb(self, draft: Path) -> list[str | Path]:
        command: list[str | Path] = [self._programs / "initdb", "-D", draft]
        command += ["--username", USER, "--auth-local=trust", "--auth-host=reject"]
        # Order by code point: it does not change under an index when libc does.
        command += ["--encoding=UTF8", "--locale=C", "--data-checksums"]
        return [*command, "--no-sync"] if self._fast_unsafe else command

    async def _run(self) -> None:
        """Start the server, once more while children of a killed one are ending."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while True:
            make_socket_folder(self._socket_folder, self._account)
            self._process = self._spawn(self._postgres(), signal.SIGINT)
            await _wait_until(self._is_decided, _START_SECONDS)
            if self._is_ready():
                return
            tail = self._log.tail()
            if _STILL_IN_USE not in tail or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {tail}")
            await asyncio.sleep(10 * _POLL_SECONDS)

    def _postgres(self) -> list[str | Path]:
        # On the command line, since there it beats the files and ALTER SYSTEM.
        safe = "off" if self._fast_unsafe else "on"
        quoted = str(self._socket_folder).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "64MB",
            "fsync": safe,
            "full_page_writes": safe,
            "synchronous_commit": "on",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "%m [%p] ",
            # What people write must not reach the log with a failed statement.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [self._programs / "postgres", "-D", self._cluster, *options]

    def _spawn(
        self, command: Sequence[str | Path], ends_with: int
    ) -> subprocess.Popen[bytes]:
        """Start a program as the account, on this very thread (see the class)."""
        log = self._log.open()
        try:
            return subprocess.Popen(  # noqa: S603 - no shell, no input of a person
                self._account.command(command, ends_with),
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _is_decided(self) -> bool:
        return self.pid is None or self._is_ready()

    def _is_ready(self) -> bool:
        lines = read_pid_file(self._cluster)
        # The file may still be that of the server before.
        return len(lines) >= 8 and lines[0] == str(self.pid) and "ready" in lines[7]


def running_dsn(data_dir: Path) -> str | None:
    """Return how to reach the server that another process runs on the folder, if any.

    For commands that look at the data while `serve` runs. Only the user who started
    that server, or root, may read this.
    """
    cluster = data_dir.resolve() / "postgres"
    try:
        lines = read_pid_file(cluster)
    except PermissionError:
        return None
    if running_pid(cluster) is None or len(lines) < 8 or "ready" not in lines[7]:
        return None
    return dsn(lines[4])


def _cluster_version(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text("ascii"))
    except FileNotFoundError:
        if cluster.exists():
            raise EmbeddedPostgresError(f"{cluster} is not a cluster") from None
        return None


def _require_version(version: int, programs: Path, cluster: Path) -> None:
    if (found := major_version(programs)) != version:
        raise EmbeddedPostgresError(
            f"{cluster} was made by PostgreSQL {version}, and {programs} is {found}: "
            f"name the programs of {version} in VIVA_PG_BIN, or carry the data over "
            "with pg_dump or pg_upgrade"
        )


async def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    return met


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Cut connections and stop; if that takes too long, without a checkpoint; kill."""
    for number, seconds in (
        (signal.SIGINT, _FAST_STOP_SECONDS),
        (signal.SIGQUIT, _IMMEDIATE_STOP_SECONDS),
    ):
        process.send_signal(number)
        if await _wait_until(lambda: process.poll() is not None, seconds):
            return
    process.kill()
    process.wait()
