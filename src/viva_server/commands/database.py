"""The database for commands that run beside a server, or without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from viva_server.config import Config
from viva_server.errors import ConfigError, EmbeddedPostgresError
from viva_server.store.driver.database import Database
from viva_server.store.embedded.data_folder import FolderLock
from viva_server.store.migrate import schema_state

QUERY_SECONDS = 60.0
"""A command may wait longer than a request."""

_TAKING_TURNS_SECONDS = 10.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """A database; `is_alone` says that no server can be running on it."""

    database: Database
    is_alone: bool


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[OpenDatabase]:
    """Open the database of the settings for a block.

    The embedded one is that of the running server, else it is started for the block.

    Raises:
        ConfigError: it cannot be used, or there is none yet.
        SchemaError: it is of another version.
        StoreUnavailableError, EmbeddedPostgresError: it cannot be reached.
    """
    async with AsyncExitStack() as stack:
        dsn, is_alone = await find_dsn(config, stack)
        database = Database(
            dsn,
            pool_size=2,
            application_name="viva_server command",
            query_seconds=QUERY_SECONDS,
        )
        await database.open()
        stack.push_async_callback(database.close)
        await database.check_server()
        (await schema_state(database)).require_current()
        yield OpenDatabase(database, is_alone)


async def find_dsn(config: Config, stack: AsyncExitStack) -> tuple[str, bool]:
    """Give the address of the database, and whether no server can be running on it.

    An embedded one that does not run is started, and stopped with the stack.
    """
    if config.database_url is not None:
        return config.database_url, False
    # Imported only where it is used, as in services.
    from viva_server.store.embedded.server import EmbeddedPostgres, running_dsn  # noqa: PLC0415

    if not (config.data_dir / "postgres").exists():
        raise ConfigError([f"there is no database in {config.data_dir} yet"])
    deadline = time.monotonic() + _TAKING_TURNS_SECONDS
    # A server that just starts, or stops, has the folder and no database to use.
    while (dsn := running_dsn(config.data_dir)) is None:
        if not _is_taken(config.data_dir) or time.monotonic() > deadline:
            embedded = EmbeddedPostgres(config.data_dir, pg_bin=config.pg_bin)
            await embedded.start()
            stack.push_async_callback(embedded.stop)
            return embedded.dsn, True
        await asyncio.sleep(_POLL_SECONDS)
    return dsn, False


def _is_taken(data_dir: Path) -> bool:
    lock = FolderLock(data_dir)
    try:
        lock.acquire()
    except EmbeddedPostgresError:
        return True
    lock.release()
    return False
