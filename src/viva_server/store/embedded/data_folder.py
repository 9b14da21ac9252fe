"""The data folder: made with the right modes, used by one server, holds secrets."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path

from viva_server.errors import ConfigError, EmbeddedPostgresError

_SECRET_BYTES = 48  # 64 characters; RFC 7518 § 3.2 asks for 32 bytes


def make_data_folder(folder: Path) -> None:
    """Make the folder, if it is not there, closed to others.

    Root's may be passed through (0711), since PostgreSQL runs as another user there.
    The modes of a folder that exists, and of its parents, stay as they are.
    """
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


class FolderLock:
    """Makes one process the only user of a data folder until it releases or ends.

    The kernel drops the lock with the process, so none is ever stale. The file stays.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock at once.

        Raises:
            EmbeddedPostgresError: another one holds it.
            OSError: the folder cannot be written.
        """
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise EmbeddedPostgresError(
                f"another viva-server uses {self._file.parent} (pid {pid or 'unknown'})"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others use the folder; harmless when the lock is not held."""
        if self._descriptor is not None:
            # Closing is not enough while a program is being started: until its exec
            # the forked process holds the descriptor, too.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def load_or_create_secret(file: Path) -> str:
    """Return the secret in the file, which is made (mode 0600) if it is missing.

    Processes that make it at the same time get the same one. It is on disk before it
    is returned: a token signed with it survives a power failure.

    Raises:
        ConfigError: the file is readable by others, or too short for a secret.
    """
    if not file.exists():
        make_data_folder(file.parent)
        _create_secret(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ConfigError([f"{file} is open to other users: chmod 600 {file}"])
    secret = file.read_text("ascii").strip()
    if len(secret) < _SECRET_BYTES:
        raise ConfigError([f"{file} is damaged: remove it to have a new one made"])
    return secret


def _create_secret(file: Path) -> None:
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        # A link never replaces and is never half there, unlike open(O_EXCL) and write.
        os.link(draft, file)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
