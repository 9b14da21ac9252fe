"""PgBouncer before a test's database, in any of its modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg2.extensions import make_dsn, parse_dsn

from tests.postgres import data_folder
from tests.programs import free_port


class PgBouncer:
    """A PgBouncer that may be killed and started again; it logs in as `user`."""

    def __init__(
        self, database_url: str, mode: str, folder: Path, user: str = "user=viva"
    ) -> None:
        self.mode = mode
        address = parse_dsn(database_url)
        self.port = free_port()
        self.dsn = make_dsn(
            host="127.0.0.1", port=self.port, user="viva", dbname=address["dbname"]
        )
        self._process: subprocess.Popen[str] | None = None
        self._settings = folder / "ini"
        self._settings.write_text(
            "[databases]\n"
            f"* = host={address['host']} port={address['port']} {user}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\nmax_client_conn = 200\n"
            "default_pool_size = 60\n"
            "query_wait_timeout = 5\nserver_login_retry = 1\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        self._settings.chmod(0o644)

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("pgbouncer")
        if program is None:
            raise AssertionError("pgbouncer is not there: run .ci/packages.sh")
        user = ["-u", "postgres"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, "-q", *user, self._settings], stderr=subprocess.DEVNULL, text=True
        )
        wait_for_port(self.port)

    def kill(self) -> None:
        """End it at once, its connections with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def pgbouncer(database_url: str, mode: str) -> Iterator[str]:
    """Run PgBouncer before a database and give the way through it."""
    with data_folder() as folder:
        pooler = PgBouncer(database_url, mode, folder)
        try:
            pooler.start()
            yield pooler.dsn
        finally:
            pooler.kill()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("never listened")
