"""What removes data: `viva-server erase` for a person, `purge` for what is old."""

from __future__ import annotations

import asyncio
import sys

import click

from viva_server.chat.recovery import recovering
from viva_server.commands.database import open_database
from viva_server.commands.people import (
    in_words,
    person_options,
    progress,
    stand_in,
    subject_of,
)
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.store.erasure import Erasure
from viva_server.store.people import Counts, Subject, audited, with_addresses
from viva_server.store.retention import KEY_DAYS, Purge


@click.command("erase")
@person_options
@click.option("--yes", is_flag=True, help="Do not ask. Needed without a terminal.")
def erase_command(user: str | None, whatsapp: str | None, yes: bool) -> None:
    """Remove all that is stored of a person, for good.

    Live replies of the person are stopped first. It can run beside the server; cut
    short, it is run again. docs/privacy.md says what remains.
    """
    subject = subject_of(user, whatsapp)
    _require_consent(subject, yes)
    counts = asyncio.run(_erase(Config.from_env(), subject))
    click.echo(f"erased {in_words(counts)}", err=True)


def _require_consent(subject: Subject, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, --yes is needed")
    channel, name = subject.person
    click.confirm(f"Erase all of {name} ({channel}) for good?", abort=True, err=True)


async def _erase(config: Config, subject: Subject) -> Counts:
    async with open_database(config) as opened:
        database = opened.database
        whole = await with_addresses(database, subject)
        total = await _measure_person(database, whole)
        with progress("erasing", total) as advance:
            erasure = Erasure(database, whole, advance=advance)
            who = stand_in(config, subject.person)
            async with (
                recovering(database, is_alone=opened.is_alone),
                audited(database, "erase", who, erasure.counts),
            ):
                await erasure.run()
    return erasure.counts


async def _measure_person(database: Database, subject: Subject) -> int:
    """Count messages to remove and deliveries to look at."""
    total = 0
    for person in subject.people:
        row = await database.fetch_one(
            "measure_person", channel=person.channel, person=person.id
        )
        assert row is not None, "count(*) gives one row"
        total += int(row.messages)
    if subject.instance is not None:
        everybody = await database.fetch_one("measure_all")
        assert everybody is not None, "count(*) gives one row"
        total += everybody.deliveries * (2 if subject.learned else 1)
    return total


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
        total = await _measure_old(opened.database, config)
        with progress("purging", total) as advance:
            purge = Purge(
                opened.database,
                session_days=config.retention_days,
                inbox_days=config.inbox_retention_days,
                advance=advance,
            )
            await purge.run()
    return purge.counts


async def _measure_old(database: Database, config: Config) -> int:
    """Count the rows that are looked at one by one."""
    row = await database.fetch_one("measure_all")
    assert row is not None, "a SELECT without FROM gives one row"
    sessions = row.sessions if config.retention_days is not None else 0
    is_emptied = config.inbox_retention_days < KEY_DAYS
    return int(sessions + (row.deliveries if is_emptied else 0))
