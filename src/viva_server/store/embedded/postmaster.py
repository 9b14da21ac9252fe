"""What PostgreSQL says of itself: its lock file, its log, where its socket is."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.account import Account

USER = "viva"
DATABASE = "postgres"  # the one that initdb makes; the cluster holds nothing else
PORT = 5432

_SOCKET_PATH_BYTES = 107  # unix(7): sun_path, less its final NUL
_LOG_BYTES = 10_000_000
_TAIL_LINES = 8


def read_pid_file(cluster: Path) -> list[str]:
    """Return the lines of `postmaster.pid`: pid, …, 5 the socket folder, 8 the state.

    https://www.postgresql.org/docs/current/storage-file-layout.html
    """
    try:
        return (cluster / "postmaster.pid").read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def running_pid(cluster: Path) -> int | None:
    """Return the pid of the PostgreSQL that runs on the cluster, else None."""
    lines = read_pid_file(cluster)
    if not lines or not lines[0].isdecimal():
        return None
    pid = int(lines[0])
    return pid if _runs_on(pid, cluster) else None


def _runs_on(pid: int, cluster: Path) -> bool:
    try:
        # All may read it, unlike /proc/<pid>/cwd. Empty: a zombie.
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return _exists(pid)
    return os.fsencode(cluster) in words


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_stranger(cluster: Path) -> None:
    """Remove a `postmaster.pid` whose number is another program's by now.

    In a container numbers return after each start, and PostgreSQL refuses to start
    while the number lives. With a number that nobody has, the file stays: PostgreSQL
    needs it to find children of a killed server.
    """
    lines = read_pid_file(cluster)
    if not lines or not lines[0].isdecimal():
        return
    pid = int(lines[0])
    if _exists(pid) and not _runs_on(pid, cluster):
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def dsn(socket_folder: Path | str) -> str:
    """Return the libpq connection string of a server with its socket there."""
    quoted = str(socket_folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"host='{quoted}' port={PORT} user={USER} dbname={DATABASE}"


def socket_folder(data_dir: Path) -> Path:
    """Return the folder for the socket: `run` in the data folder, if libpq can take it.

    Its path must be short and without a comma, which separates hosts. Else a folder in
    /tmp, always the same one for the same data folder and user.
    """
    folder = data_dir / "run"
    path = os.fsencode(folder / f".s.PGSQL.{PORT}")
    if len(path) <= _SOCKET_PATH_BYTES and b"," not in path:
        return folder
    key = f"{os.geteuid()}:{data_dir}".encode(errors="surrogateescape")
    name = f"viva-server-{hashlib.sha256(key).hexdigest()[:16]}"
    return Path("/tmp") / name  # noqa: S108 - made and checked by make_socket_folder


def make_socket_folder(folder: Path, account: Account) -> None:
    """Make the folder anew, for the account alone: its mode is the only lock.

    What an earlier server left in it goes: a stale socket's lock file, as
    `postmaster.pid`, may hold a number that another program has by now.

    Raises:
        EmbeddedPostgresError: somebody else has made a folder of that name.
    """
    remove_socket_folder(folder, account)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise EmbeddedPostgresError(f"{folder} belongs to somebody else") from None
    account.own(folder)


def remove_socket_folder(folder: Path, account: Account) -> None:
    """Remove the folder, if it is one of ours."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    ours = {os.geteuid(), account.uid}
    if stat.S_ISDIR(found.st_mode) and found.st_uid in ours:
        shutil.rmtree(folder)


class ServerLog:
    """The file that PostgreSQL writes its log to.

    It holds no text of a person: statements and details of errors are not logged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._start = 0

    def open(self) -> int:
        """Return a descriptor to append with; a large file is set aside first."""
        if self.file.exists() and self.file.stat().st_size > _LOG_BYTES:
            self.file.replace(self.file.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.file, flags, 0o600)
        self._start = os.fstat(descriptor).st_size
        return descriptor

    def tail(self) -> str:
        """Return the last lines written since `open`, in one line."""
        with self.file.open("rb") as stream:
            stream.seek(self._start)
            text = stream.read().decode("utf-8", "replace")
        return " | ".join(text.splitlines()[-_TAIL_LINES:])
