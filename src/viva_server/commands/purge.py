"""`viva-server purge`: what is older than the settings let it be."""

from __future__ import annotations

import asyncio

import click

from viva_server.commands.opening import open_database
from viva_server.commands.people import in_words
from viva_server.commands.progress import progress
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.store.people import Counts
from viva_server.store.retention import KEY_DAYS, Purge


@click.command("purge")
def purge_command() -> None:
    """Remove what is older than the settings let it be.

    Sessions without activity for VIVA_RETENTION_DAYS go whole or not at all (unset:
    they are kept), the content of webhooks after VIVA_INBOX_RETENTION_DAYS. A server
    does the same once a day.
    """
    counts = asyncio.run(_purge(Config.from_env()))
    click.echo(f"purged {in_words(counts)}", err=True)


async def _purge(config: Config) -> Counts:
    async with open_database(config) as opened:
        total = await _measure(opened.database, config)
        with progress("purging", total) as advance:
            purge = Purge(
                opened.database,
                session_days=config.retention_days,
                inbox_days=config.inbox_retention_days,
                advance=advance,
            )
            await purge.run()
    return purge.counts


async def _measure(database: Database, config: Config) -> int:
    """Count the rows that are looked at one by one."""
    row = await database.fetch_one("measure_all")
    assert row is not None, "a SELECT without FROM gives one row"
    sessions = row.sessions if config.retention_days is not None else 0
    is_emptied = config.inbox_retention_days < KEY_DAYS
    return int(sessions + (row.deliveries if is_emptied else 0))
