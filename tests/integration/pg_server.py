"""A real PostgreSQL of the tests' own: started, stopped, crashed and restarted."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

_SETTINGS = """
fsync = off
max_connections = 40
shared_buffers = 16MB
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
log_min_messages = fatal
"""


def find_programs() -> Path:
    """Return the folder of initdb and pg_ctl: from PATH, else Debian's newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    usable = [folder for folder in folders if (folder / "initdb").exists()]
    if not usable:
        raise RuntimeError("PostgreSQL's initdb is not installed")
    return max(usable, key=lambda folder: int(folder.parent.name))


def _unprivileged_user() -> str | None:
    """Name whom PostgreSQL runs as; it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PgServer:
    """One cluster in a temporary folder; every method blocks until it is done."""

    def __init__(self) -> None:
        self._programs = find_programs()
        self._user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix="viva-pg-"))
        self.port = _free_port()

    @property
    def socket_dsn(self) -> str:
        """The superuser's way in through the unix socket, without a database."""
        return f"host={self.folder} port={self.port} user=viva"

    @property
    def tcp_url(self) -> str:
        """The same through loopback TCP, as a URL without a database."""
        return f"postgresql://viva@127.0.0.1:{self.port}"

    def create(self) -> None:
        """Make the cluster and start it."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--username=viva", "--auth=trust", "--encoding=UTF8",
                  "--locale=C", "--no-sync", "-D", str(self._data))  # fmt: skip
        settings = _SETTINGS.format(folder=self.folder, port=self.port)
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write(settings)
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", "30",
                  "-l", str(self.folder / "log"), "start")  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop it; mode "immediate" is a crash: no checkpoint, recovery at start."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop it if it runs and delete its folder."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        done = subprocess.run(
            command,
            user=self._user,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program == "initdb" else subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout or 'see its log'}")
