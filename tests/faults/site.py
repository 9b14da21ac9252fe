"""Servers, PgBouncer and PostgreSQL, of which every part can be made to fail.

    clients -> viva-server -> its own proxy -> PgBouncer, if wanted -> PostgreSQL

Where namespaces allow (`isolate`), packets can be lost, the log's disk can be full, and
the database has a name whose address changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import psycopg2
from psycopg2.extensions import make_dsn

from tests.acceptance.bouncer import PgBouncer
from tests.fakes.model import FakeModel
from tests.faults.fleet import Fleet, Server, fleet_of
from tests.faults.proxy import Proxy
from tests.postgres import PostgresServer, run_sql
from viva_server.store.embedded.postmaster import read_pid_file
from viva_server.store.embedded.server import EmbeddedPostgres

Pooler = Literal["", "session", "transaction"]

ROLE, PASSWORD = "viva_app", "the password of the campaign"
HOST = "database.viva.test"
LOG_DISK_BYTES = 64 * 2**20
_ISOLATED = "TESTS_ISOLATED"
_LIBFAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
_ADDRESSES = ("127.0.0.1", "127.0.0.2")


def can_set_clocks() -> bool:
    """Whether libfaketime is there."""
    return _LIBFAKETIME is not None


def is_isolated() -> bool:
    """Whether this process runs in namespaces of its own."""
    return _ISOLATED in os.environ


def namespaces() -> list[str]:
    """Give what runs a command in namespaces of its own; none if that may not be done.

    Network, mounts and processes are those of the command alone: what it does to them
    concerns nobody else, and ends with this process, also when that is killed.
    """
    # unshare ignores SIGTERM while it waits for its child.
    spaces = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid"]
    spaces += ["--fork", "--kill-child", "--mount-proc"]
    try:
        subprocess.run([*spaces, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return ["env", f"{_ISOLATED}=1", *spaces]


def isolate(module: str, arguments: Sequence[str]) -> None:
    """Run `python -m module` again in namespaces of its own, where that may be done.

    Returns in the new program, and where the machine does not let us.
    """
    if not is_isolated() and (spaces := namespaces()):
        command = [*spaces, sys.executable, "-m", module, *arguments]
        sys.exit(subprocess.run(command, check=False).returncode)
    if is_isolated():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class FaultyPostgres(EmbeddedPostgres):
    """A PostgreSQL whose clock is wrong from its next start on, or a standby.

    `ahead` is how far its clock is ahead, such as "60s". Meanwhile its own time-outs do
    not fire: libfaketime tells a signal handler the true time if it interrupts a
    waiting call. A clock that libfaketime reads from a file may jump without a start,
    but it is read in signal handlers too, and that crashes PostgreSQL.
    """

    ahead = ""

    def _postgres(self) -> list[str | Path]:
        command = [*super()._postgres(), "-c", "max_connections=300"]
        if not self.ahead:
            return command
        preload = f"LD_PRELOAD={_LIBFAKETIME}"
        true_monotonic = "FAKETIME_DONT_FAKE_MONOTONIC=1"
        clock = [preload, true_monotonic, f"FAKETIME=+{self.ahead}"]
        return ["/usr/bin/env", *clock, *command]

    def _is_ready(self) -> bool:
        lines = read_pid_file(self._cluster)
        is_standby = len(lines) >= 8 and "standby" in lines[7]
        return super()._is_ready() or (is_standby and lines[0] == str(self.pid))


def prepare(postgres: PostgresServer, dsn: str) -> None:
    """Make the role of the servers, who is no owner, and note who owns which reply."""
    with contextlib.suppress(psycopg2.errors.DuplicateObject):
        run_sql(dsn, f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    run_sql(
        dsn,
        f"""
        GRANT USAGE ON SCHEMA viva TO {ROLE};
        GRANT ALL ON ALL TABLES IN SCHEMA viva TO {ROLE};
        GRANT ALL ON ALL SEQUENCES IN SCHEMA viva TO {ROLE};
        CREATE SCHEMA campaign;
        CREATE TABLE campaign.owned (message_id uuid, owner uuid);
        CREATE FUNCTION campaign.note() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER AS $$ BEGIN
            INSERT INTO campaign.owned VALUES (NEW.message_id, NEW.owner);
            RETURN NULL;
        END $$;
        CREATE TRIGGER note AFTER INSERT ON viva.live_replies
        FOR EACH ROW EXECUTE FUNCTION campaign.note();
        """,
    )
    rules = postgres.folder / "postgres" / "pg_hba.conf"
    known = rules.read_text()
    rule = f"local all {ROLE} scram-sha-256\n"
    if not known.startswith(rule):
        rules.write_text(rule + known)
        run_sql(dsn, "SELECT pg_reload_conf()")


class Site:
    """Servers on one database, each with a way of its own to it.

    `fleet.dsn` is the owner's direct way, for who looks on.
    """

    def __init__(
        self, postgres: PostgresServer, fleet: Fleet, pooler: PgBouncer | None
    ) -> None:
        self.postgres = postgres
        self.fleet = fleet
        self.pooler = pooler
        self.chance = random.Random(0)
        """By which a fault chooses what it breaks."""
        self.filler: Path | None = None
        """What fills the disk of the logs, where they have one of their own."""
        self._address = 0
        self._ways: dict[str, list[Proxy]] = {}
        self._stack = contextlib.AsyncExitStack()

    @property
    def servers(self) -> list[Server]:
        return self.fleet.servers

    def way(self, server: Server) -> Proxy:
        """The proxy by which the server reaches the database now."""
        return self._ways[server.name][self._address]

    async def add(self, **settings: str) -> Server:
        """Make a server with its way; it is not started."""
        target = self.pooler.dsn if self.pooler else self.fleet.dsn
        first = await self._stack.enter_async_context(Proxy(target))
        ways = [first]
        for host in _ADDRESSES[1:] if is_isolated() else ():
            other = Proxy(target, host=host, port=first.port)
            ways.append(await self._stack.enter_async_context(other))
        address = HOST if is_isolated() else first.host
        url = make_dsn(
            first.dsn, host=address, port=first.port, user=ROLE, password=PASSWORD
        )
        settings = {"database_url": str(url), "auto_migrate": "0", **settings}
        server = self.fleet.add(armed=(), prefix=(), **settings)
        self._ways[server.name] = ways
        return server

    async def run(self, server: Server) -> None:
        """Start a server as a supervisor does: again until it runs."""
        while True:
            with contextlib.suppress(RuntimeError):
                await server.start()
                return
            server.discard()
            await asyncio.sleep(0.5)

    async def move(self) -> None:
        """Give the database another address, and lose the one that it had.

        It is another machine: it has no connection of before, the clients still have.
        """
        for ways in self._ways.values():
            await ways[self._address].set("drop")
            ways[self._address].forget()
        self._address = (self._address + 1) % len(_ADDRESSES)
        for ways in self._ways.values():
            ways[self._address].reset()
            await ways[self._address].set("pass")

    def tell_address(self) -> None:
        """Let the name lead to the database again."""
        # In place: it is mounted over /etc/hosts, and libc reads it anew each time.
        known = f"127.0.0.1 localhost\n{_ADDRESSES[self._address]} {HOST}\n"
        Path("/etc/hosts").write_text(known)

    async def close(self) -> None:
        await self._stack.aclose()
        if self.pooler is not None:
            self.pooler.kill()


def lose_packets(ports: Sequence[int], percent: int) -> None:
    """Lose so many packets of these ports, in both ways; 0 ends that for all."""
    rules = ["add table inet campaign", "delete table inet campaign"]
    if percent:
        rules += [
            "add table inet campaign",
            "add chain inet campaign lost { type filter hook input priority 0; }",
        ]
        rules += [
            f"add rule inet campaign lost tcp {end} {port}"
            f"{f' numgen random mod 100 < {percent}' if percent < 100 else ''} drop"
            for port in ports
            for end in ("dport", "sport")
        ]
    subprocess.run(["nft", "-f", "-"], input="\n".join(rules), text=True, check=True)


def _mount(folder: Path) -> Path:
    """Mount a file of names, and a small disk for logs; give the disk."""
    names = folder / "hosts"
    names.write_text(f"127.0.0.1 localhost\n{_ADDRESSES[0]} {HOST}\n")
    names.chmod(0o644)
    subprocess.run(["mount", "--bind", names, "/etc/hosts"], check=True)
    logs = folder / "logs"
    logs.mkdir()
    size = f"size={LOG_DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "logs", logs], check=True)
    return logs


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "/etc/hosts", folder / "logs"], check=False)


@contextlib.asynccontextmanager
async def site_of(
    postgres: PostgresServer,
    dsn: str,
    model: FakeModel,
    folder: Path,
    pooler: Pooler = "",
) -> AsyncIterator[Site]:
    """Give a site without servers yet on a fresh database; all is ended at the end.

    What the servers wrote is kept in `folder`.
    """
    prepare(postgres, dsn)
    logs = _mount(folder) if is_isolated() else folder
    bouncer = None
    try:
        async with fleet_of(dsn, model, logs) as fleet:
            if pooler:
                login = f"user={ROLE} password='{PASSWORD}'"
                bouncer = PgBouncer(dsn, pooler, folder, login)
                bouncer.start()
            site = Site(postgres, fleet, bouncer)
            if logs != folder:
                site.filler = logs / "filler"
            try:
                yield site
            finally:
                await site.close()
    finally:
        if logs != folder:
            for log in logs.glob("*.log"):
                shutil.copy(log, folder)
            _unmount(folder)
