"""Whose data a command is about, what stands for them in records, how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from viva_server.api.request import generated_secret
from viva_server.config import Config
from viva_server.store.people import (
    Person,
    Subject,
    person_hmac,
    web_subject,
    whatsapp_subject,
)

Command = TypeVar("Command", bound=Callable[..., Any])


def person_options(command: Command) -> Command:
    """Add --user and --whatsapp; give both to `subject_of`."""
    command = click.option(
        "--whatsapp",
        metavar="INSTANCE/PHONE",
        help="A person on WhatsApp, the phone as WhatsApp has it (digits only).",
    )(command)
    return click.option("--user", metavar="U", help="A user's id (claim sub).")(command)


def subject_of(user: str | None, whatsapp: str | None) -> Subject:
    """Say who is meant.

    Raises:
        click.UsageError: nobody, or two, or a name that cannot be one.
    """
    if (user is None) == (whatsapp is None):
        raise click.UsageError("name one person: --user U or --whatsapp INSTANCE/PHONE")
    if whatsapp is None:
        if not user:
            raise click.BadParameter("must not be empty", param_hint="--user")
        return web_subject(user)
    try:
        return whatsapp_subject(whatsapp)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--whatsapp") from None


def stand_in(config: Config, person: Person) -> bytes:
    """Give what stands for a person in the record of exports and erasures."""
    secrets = config.jwt_secret or (generated_secret(config),)
    return person_hmac(person, secrets[0])


def in_words(counts: dict[str, int]) -> str:
    """Say how many of what, such as "2 sessions, 10 messages"."""
    return ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items())


_LINE_SECONDS = 5.0


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give what is called with how many more of `total` are done; all is on stderr."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
    else:
        yield _lines(label, total)


def _lines(label: str, total: int) -> Callable[[int], None]:
    done = 0
    said_at = time.monotonic()

    def advance(number: int) -> None:
        nonlocal done, said_at
        done += number
        if time.monotonic() - said_at > _LINE_SECONDS:
            said_at = time.monotonic()
            click.echo(f"{label}: {done} of {total}", err=True)

    return advance
