"""The user that PostgreSQL runs as, and commands run as that user."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viva_server.errors import EmbeddedPostgresError

_LAUNCHER = Path(__file__).with_name("launcher.py")


def clean_environment() -> dict[str, str]:
    """Return the environment of PostgreSQL: none of our secrets, no PG* variable.

    Its messages are English (we read them), its time zone is UTC.
    """
    environment = {"LC_ALL": "C", "TZ": "UTC"}
    # An interpreter with a shared libpython may not start without it.
    if path := os.environ.get("LD_LIBRARY_PATH"):
        environment["LD_LIBRARY_PATH"] = path
    return environment


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL; a `uid` of -1 is whoever runs this process."""

    name: str
    uid: int = -1
    gid: int = -1

    @classmethod
    def choose(cls, cluster: Path) -> Account:
        """Return this process's user, but for root the owner of the cluster or nobody.

        PostgreSQL refuses to run as root. A cluster that exists keeps its owner, so
        that root and that user can take turns.

        Raises:
            EmbeddedPostgresError: root finds no user to run it as.
        """
        if os.geteuid() != 0:
            return cls(_user_name(os.geteuid()))
        if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
            return cls(_user_name(owner.st_uid), owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid)
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
        )

    def own(self, path: Path) -> None:
        """Give the path to this user."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def command(self, command: Sequence[str | Path], ends_with: int) -> list[str]:
        """Return what runs `command` as this user.

        It gets the signal `ends_with` when the thread that started it ends.
        """
        numbers = (ends_with, os.getpid(), self.uid, self.gid)
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER)]
        return [*launcher, *map(str, numbers), *map(str, command)]

    def can(self, *command: str | Path) -> bool:
        """Run a short command as this user and tell whether it succeeded. Blocks."""
        finished = subprocess.run(  # noqa: S603 - no shell, no input of a person
            self.command(command, signal.SIGKILL),
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return finished.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user can reach what lies in the folder. Blocks.

        The kernel is asked, as that user: modes alone say nothing of access lists.
        """
        return self.can("/bin/sh", "-c", 'test -x "$1"', "sh", folder)

    def require_way_to(self, folder: Path) -> None:
        """Check that this user can reach the folder; no permission is ever opened.

        Raises:
            EmbeddedPostgresError: it cannot; the closed folder is named.
        """
        if self.uid < 0 or self.can_enter(folder):
            return
        if not self.can_enter(Path("/")):
            raise EmbeddedPostgresError(
                f"root may not run programs as user {self.name} here, and PostgreSQL "
                "refuses to run as root: run viva-server as a normal user"
            )
        ways = [*reversed(folder.parents), folder]
        closed = next((way for way in ways if not self.can_enter(way)), folder)
        raise EmbeddedPostgresError(
            f"user {self.name}, who runs PostgreSQL since it refuses to run as root, "
            f"cannot reach {folder}: {closed} is closed. Choose another VIVA_DATA_DIR, "
            "such as /var/lib/viva-server, or run viva-server as a normal user"
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
