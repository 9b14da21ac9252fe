"""Bring the database's schema to the one that this version needs."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal, assert_never

from viva_server.errors import (
    SchemaError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.database import Connection, Database

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_NEXT = re.compile("^-- next transaction.*\n", re.MULTILINE)
# One for all versions of viva_server; "viva" in ASCII, and no process's lock.
_LOCK_KEY = 0x76697661
_LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.2

_RECORD = """
CREATE TABLE IF NOT EXISTS viva.migrations (
    version integer CONSTRAINT migrations_pkey PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO viva.migrations (version, name, sha256)
VALUES ({version}, '{name}', '{sha256}');
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of sql/migrations; it is never changed once it was released."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hexadecimal digest that is recorded with it."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def scripts(self) -> list[str]:
        """The statements that apply and record it, an atomic round trip each.

        There is one, unless a comment `-- next transaction` ends it: for what would
        hold a lock too long. All of them can be run again, after a kill between two.
        """
        # Name and digest cannot hold a quote: see _FILE_NAME.
        return _NEXT.split(f"{self.sql}\n{self.record}")

    @property
    def record(self) -> str:
        """The statements that record it as applied."""
        return _RECORD.format(
            version=self.version, name=self.name, sha256=self.sha256
        ).strip()


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database's schema stands to this version, and the migrations that differ.

    `behind`: they are missing. `ahead`: a newer version has applied them. `altered`:
    the database has them with another content; it wins over the other two.
    """

    word: Literal["current", "behind", "ahead", "altered"]
    names: tuple[str, ...] = ()

    def require_current(self) -> None:
        """Raise SchemaError, which says what to do, unless the state is `current`."""
        names = ", ".join(self.names)
        match self.word:
            case "current":
                return
            case "behind":
                problem = f"misses {names}: run viva-server migrate"
            case "ahead":
                problem = f"is of a newer viva_server (it has {names}): use that one"
            case "altered":
                problem = f"has another content of {names}: never edit a released one"
            case _:
                assert_never(self.word)
        raise SchemaError(f"the database's schema {problem}")


def load_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """Read the migrations of the package, or of a folder, in their order.

    Raises:
        SchemaError: a file's name is wrong, or two have one number, or one is missing.
    """
    folder = folder or resources.files("viva_server.sql") / "migrations"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    found = tuple(_read(file) for file in files)
    if [each.version for each in found] != list(range(1, len(found) + 1)):
        raise SchemaError("the migrations are not numbered 1, 2, 3 …, each once")
    return found


async def schema_state(
    database: Database, migrations: Sequence[Migration] | None = None
) -> SchemaState:
    """Compare the database with the migrations (default: the package's).

    Raises:
        StoreError: the database cannot be asked.
    """
    known = load_migrations() if migrations is None else migrations
    return _compare(known, await _applied(database))


async def migrate(
    database: Database,
    migrations: Sequence[Migration] | None = None,
    *,
    lock_seconds: float = _LOCK_SECONDS,
) -> list[str]:
    """Apply the missing migrations in order and return their names.

    Each one is a transaction of its own, recorded in it, or several with the record in
    the last. One process at a time: others wait, then find nothing to do. A
    cancellation leaves whole transactions. A database that a newer version has migrated
    stays as it is.

    Raises:
        SchemaError: an applied migration is not the one of this version.
        StoreUnavailableError: another process has been migrating for `lock_seconds`.
        StoreError: a migration failed; nothing of it is stored.
    """
    known = load_migrations() if migrations is None else migrations
    connection = await database.connect()
    try:
        await _take_lock(connection, lock_seconds)
        return await _apply_missing(database, known)
    finally:
        await connection.close()


async def _take_lock(connection: Connection, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        row = await connection.fetch_one("take_migration_lock", lock_key=_LOCK_KEY)
        if row is not None and row.held:
            return
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                f"another process has been migrating for {seconds:g} s"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _apply_missing(database: Database, known: Sequence[Migration]) -> list[str]:
    applied = await _applied(database)
    state = _compare(known, applied)
    if state.word == "altered":
        state.require_current()
    missing = [each for each in known if each.version not in applied]
    for migration in missing:
        for script in migration.scripts:
            await _apply(database, script)
    return [each.name for each in missing]


async def _apply(database: Database, script: str) -> None:
    """Run a script, again while others hold a lock that it needs."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return await database.execute_script(script)
        except TransientStoreError:
            # It gives up early, so that what queues behind it can go on in between.
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)


async def _applied(database: Database) -> dict[int, tuple[str, str]]:
    """Return name and digest of each applied migration, by number."""
    row = await database.fetch_one("has_migrations")
    if row is None or not row.found:
        return {}
    rows = await database.fetch("list_migrations")
    return {row.version: (row.name, row.sha256) for row in rows}


def _compare(
    known: Sequence[Migration], applied: dict[int, tuple[str, str]]
) -> SchemaState:
    altered = [
        each.name
        for each in known
        if each.version in applied and applied[each.version][1] != each.sha256
    ]
    if altered:
        return SchemaState("altered", tuple(altered))
    if missing := [each.name for each in known if each.version not in applied]:
        return SchemaState("behind", tuple(missing))
    numbers = {each.version for each in known}
    ahead = [name for number, (name, _) in applied.items() if number not in numbers]
    return SchemaState("ahead", tuple(ahead)) if ahead else SchemaState("current")


def _read(file: Traversable) -> Migration:
    match = _FILE_NAME.fullmatch(file.name)
    if match is None:
        raise SchemaError(f"{file.name}: a migration is named like 0001_initial.sql")
    return Migration(int(match[1]), file.name, file.read_text("utf-8"))
