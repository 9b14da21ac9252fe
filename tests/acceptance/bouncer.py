"""PgBouncer before a test's database, in any of its modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from psycopg2.extensions import parse_dsn

from tests.acceptance.test_commands import free_port
from tests.postgres import data_folder


@contextmanager
def pgbouncer(database_url: str, mode: str) -> Iterator[str]:
    """Run PgBouncer before a database and give the way through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.fail("pgbouncer is not on the PATH: run .ci/packages.sh")
    address = parse_dsn(database_url)
    port = free_port()
    with data_folder() as folder:
        (folder / "ini").write_text(
            "[databases]\n"
            f"* = host={address['host']} port={address['port']} user=viva\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\nmax_client_conn = 20\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        (folder / "ini").chmod(0o644)
        user = ["-u", "postgres"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [program, *user, folder / "ini"], stderr=subprocess.PIPE, text=True
        )
        try:
            wait_for_port(port)
            name = address["dbname"]
            yield f"host=127.0.0.1 port={port} user=viva dbname={name}"
        finally:
            process.terminate()
            process.communicate(timeout=30)


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError("never listened")
