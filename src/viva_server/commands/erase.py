"""`viva-server erase`: the erasure of a person."""

from __future__ import annotations

import asyncio
import sys

import click

from viva_server.chat.recovery import recovering
from viva_server.commands.opening import open_database
from viva_server.commands.people import in_words, person_options, stand_in, subject_of
from viva_server.commands.progress import progress
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.store.erasure import Erasure
from viva_server.store.people import Counts, Subject, audited, with_addresses


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
        total = await _measure(database, whole)
        with progress("erasing", total) as advance:
            erasure = Erasure(database, whole, advance=advance)
            who = stand_in(config, subject.person)
            async with (
                recovering(database, is_alone=opened.is_alone),
                audited(database, "erase", who, erasure.counts),
            ):
                await erasure.run()
    return erasure.counts


async def _measure(database: Database, subject: Subject) -> int:
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
