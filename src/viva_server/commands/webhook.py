"""`viva-server webhook`: what the server makes of what Evolution API sends."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import click
import msgspec
from multidict import CIMultiDict

from viva_server.commands.database import open_database
from viva_server.commands.serve import run
from viva_server.config import Config
from viva_server.errors import VivaError
from viva_server.store.operator import Dead, replay
from viva_server.whatsapp.events.json_values import (
    NotJsonObjectError,
    Object,
    as_object,
    as_text,
    decode_object,
)
from viva_server.whatsapp.events.parse import parse_webhook

_MAX_ROWS = 1000


@click.group("webhook", short_help="Explain a webhook; list and replay the dead.")
def webhook() -> None:
    """Look at what Evolution API sends, and at what could not be done with it."""


@webhook.command("explain")
@click.argument("file")
@click.option(
    "--tail",
    metavar="T",
    help="The path after …/webhook/evolution, with a query if there is one.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'K: V'",
    help="A header of the delivery; may be given again.",
)
@click.option(
    "--now",
    type=float,
    metavar="EPOCH",
    help="When it came, by which old messages are told; now by default.",
)
def explain(
    file: str, tail: str | None, headers: Sequence[str], now: float | None
) -> None:
    """Print as JSON the normal form of the body of a webhook in FILE (- for stdin).

    FILE may also be a sample: an object of "headers", "body" and "expect", with the
    path in its "meta". Nothing is stored, sent or asked for, and no setting is read.
    """
    body = _read(file)
    given = CIMultiDict(_header(text) for text in headers)
    if "expect" in body and "body" in body:
        tail = tail or as_text(as_object(body.get("meta")).get("path_tail_by_events"))
        own = as_object(body.get("headers"))
        given.extend({k: v for k, v in own.items() if isinstance(v, str)})
        body = as_object(body["body"])
    path, _, query = (tail or "").partition("?")
    moment = time.time() if now is None else now
    form = parse_webhook(path, query, given, body, moment)
    click.echo(msgspec.json.format(msgspec.json.encode(form), indent=2))


@webhook.command("dead")
@click.option("--replay", "dead_id", metavar="ID", help="Do this one again.")
def dead(dead_id: str | None) -> None:
    """List as JSON lines what could not be answered, sent or applied.

    A part of state "unknown" may have arrived; its replay may send it twice.
    """
    run(_replay(dead_id) if dead_id is not None else _list_dead())


async def _list_dead() -> None:
    async with open_database(Config.from_env()) as opened:
        for each in await opened.database.fetch("list_dead", Dead, rows=_MAX_ROWS):
            click.echo(msgspec.json.encode(_members(each)))


def _members(each: Dead) -> dict[str, object]:
    return {**each._asdict(), "since": each.since.isoformat()}


async def _replay(dead_id: str) -> None:
    async with open_database(Config.from_env()) as opened:
        if not (_is_id(dead_id) and await replay(opened.database, dead_id)):
            raise VivaError(f"nothing dead has the id {dead_id}, or its chat is busy")
    click.echo(f"replayed {dead_id}")


def _is_id(text: str) -> bool:
    try:
        return bool(UUID(text))
    except ValueError:
        return False


def _read(file: str) -> Object:
    try:
        if file == "-":
            return decode_object(sys.stdin.buffer.read())
        return decode_object(Path(file).read_bytes())
    except NotJsonObjectError as error:
        raise VivaError(f"{click.format_filename(file)}: {error}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "cannot be read"
        raise VivaError(f"{click.format_filename(file)}: {reason}") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise VivaError(f"{text!r} is no header; give it as 'Name: value'")
    return name.strip(), value.strip()
