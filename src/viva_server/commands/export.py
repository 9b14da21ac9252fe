"""`viva-server export`: a person's data as JSON lines."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from viva_server._version import __version__
from viva_server.commands.database import QUERY_SECONDS, open_database
from viva_server.commands.people import (
    in_words,
    person_options,
    progress,
    stand_in,
    subject_of,
)
from viva_server.config import Config
from viva_server.store.driver.database import Database
from viva_server.store.export import export_person
from viva_server.store.people import Counts, Subject, audited, with_addresses

_FORMAT = 1
_PLURALS = {
    "session": "sessions",
    "message": "messages",
    "idempotency_key": "idempotency_keys",
    "whatsapp_chat": "whatsapp_chats",
    "whatsapp_message": "whatsapp_messages",
    "whatsapp_turn": "whatsapp_turns",
    "whatsapp_send": "whatsapp_sends",
    "delivery": "deliveries",
}


@click.command("export")
@person_options
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file, readable by you alone, instead of stdout.",
)
def export_command(user: str | None, whatsapp: str | None, output: Path | None) -> None:
    """Write all that is stored of a person, as JSON lines.

    The first line says of whom, the last one how many records there are: a file
    without it was cut. It can run beside the server.
    """
    subject = subject_of(user, whatsapp)
    config = Config.from_env()
    with _opened(output) as stream:
        counts = asyncio.run(_export(config, subject, stream))
    click.echo(f"exported {in_words(counts)}", err=True)


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(output, flags, 0o600)
    except OSError as error:
        reason = f"{output}: {error.strerror}"
        raise click.BadParameter(reason, param_hint="--output") from None
    with os.fdopen(descriptor, "wb") as stream:
        yield stream


async def _export(config: Config, subject: Subject, stream: BinaryIO) -> Counts:
    counts = dict.fromkeys(_PLURALS.values(), 0)
    async with open_database(config) as opened:
        database = opened.database
        who = stand_in(config, subject.person)
        async with audited(database, "export", who, counts):
            whole = await with_addresses(database, subject)
            total = await _measure(database, whole)
            with _progress(stream, total) as advance:
                await _write(database, whole, stream, counts, advance)
    return counts


async def _measure(database: Database, subject: Subject) -> int:
    total = 0
    for person in subject.people:
        row = await database.fetch_one(
            "measure_person", channel=person.channel, person=person.id
        )
        assert row is not None, "count(*) gives one row"
        total += row.sessions + int(row.messages)
    return total


def _progress(stream: BinaryIO, total: int) -> Any:
    """A bar would stand between the lines where both go to one terminal."""
    if stream.isatty():
        return nullcontext(lambda _: None)
    return progress("exporting", total)


async def _write(
    database: Database,
    subject: Subject,
    stream: BinaryIO,
    counts: Counts,
    advance: Callable[[int], None],
) -> None:
    """Write header, records and end; `counts` goes along."""
    _line(stream, _header(subject))
    records = export_person(database, subject, query_seconds=QUERY_SECONDS)
    async with aclosing(records):
        async for record in records:
            _line(stream, record)
            counts[_PLURALS[record["type"]]] += 1
            advance(1)
    _line(stream, {"type": "end", "records": sum(counts.values()), **counts})


def _header(subject: Subject) -> dict[str, Any]:
    return {
        "type": "header",
        "format": _FORMAT,
        "viva_server": __version__,
        "channel": subject.person.channel,
        "person": subject.person.id,
        "also_known_as": [person.id for person in subject.people[1:]],
        "exported_at": datetime.now(UTC),
    }


def _line(stream: BinaryIO, record: dict[str, Any]) -> None:
    stream.write(msgspec.json.encode(record) + b"\n")
