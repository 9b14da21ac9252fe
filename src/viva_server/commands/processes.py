"""`viva-server processes`: who beats, and who was declared dead by whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from viva_server.commands.database import open_database
from viva_server.config import Config
from viva_server.store.operator import PROCESSES

_COLUMNS = ("id", "host", "pid", "version", "started", "replies", "readers", "state")


@click.command("processes", short_help="Show who beats, and who was declared dead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def processes_command(as_json: bool) -> None:
    """Show the processes that have not left in order, the newest first.

    A dead one is shown for a day: by whom it was declared dead, and whether it had
    stood still without its lock (fast), for 15 s (slow), or was found by who started
    the embedded PostgreSQL (found).
    """
    processes = asyncio.run(_load(Config.from_env()))
    if as_json:
        for process in processes:
            click.echo(json.dumps(process, default=str))
        return
    rows = [_COLUMNS, *(_row(process) for process in processes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


async def _load(config: Config) -> list[dict[str, Any]]:
    async with open_database(config) as opened:
        rows = await opened.database.fetch("show_processes", rows=PROCESSES)
        return [row._asdict() for row in rows]


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(process["id"]),
        process["host"],
        str(process["pid"]),
        process["version"],
        f"{process['started_at']:%Y-%m-%d %H:%M:%S}",
        str(process["live_replies"]),
        str(process["readers"]),
        _state(process),
    )


def _state(process: dict[str, Any]) -> str:
    if process["dead_at"] is None:
        return f"beat {process['silent_seconds']:.1f} s ago"
    by, verdict = process["dead_by"] or "nobody alive", process["verdict"]
    how = f"{verdict}, by {by}" if verdict else "by the version before"
    return f"dead since {process['dead_at']:%Y-%m-%d %H:%M:%S} ({how})"
