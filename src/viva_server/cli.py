"""The commands of `viva-server`."""

from __future__ import annotations

import asyncio
import sys

import click

from viva_server._version import __version__
from viva_server.commands.doctor import doctor_command
from viva_server.commands.erase import erase_command, purge_command
from viva_server.commands.export import export_command
from viva_server.commands.processes import processes_command
from viva_server.commands.serve import (
    issue_token,
    serve_command,
    worker_command,
)
from viva_server.commands.webhook import webhook
from viva_server.config import Config
from viva_server.errors import (
    ConfigError,
    StoreRefusedError,
    StoreUnavailableError,
    VivaError,
)
from viva_server.services import Services

# sysexits.h, as systemd and others know them; click ends a wrong command line with 2.
_EXIT_FAILED = 1
_EXIT_UNAVAILABLE = 69
_EXIT_SETTINGS = 78

SETTINGS_HELP = """Settings come from variables that begin with VIVA_; they are listed
in docs/operations.md. Without VIVA_DATABASE_URL an embedded PostgreSQL runs in
VIVA_DATA_DIR; without VIVA_MODEL_URL a built-in responder answers."""


@click.group(epilog=SETTINGS_HELP, context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="viva-server")
def cli() -> None:
    """VIVA: a chat server that never loses a reply."""


@cli.command("migrate")
def migrate_command() -> None:
    """Bring the database's schema up to this version, then end.

    Several processes may do it at once: one works, the others wait.
    """
    applied = asyncio.run(_migrate(Config.from_env()))
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("the schema is current")


async def _migrate(config: Config) -> list[str]:
    return await Services(config).migrate_only()


@cli.command("token")
@click.option("--user", required=True, metavar="U", help="The user's id (claim sub).")
@click.option(
    "--ttl",
    default=900,
    show_default=True,
    metavar="SECONDS",
    type=click.IntRange(min=1),
    help="How long it is good for.",
)
@click.option("--scope", metavar="SCOPE", help="'admin' opens the operator's routes.")
def token_command(user: str, ttl: int, scope: str | None) -> None:
    """Print a Bearer token."""
    click.echo(issue_token(Config.from_env(), user, ttl_seconds=ttl, scope=scope))


for command in (
    doctor_command,
    erase_command,
    export_command,
    processes_command,
    purge_command,
    serve_command,
    webhook,
    worker_command,
):
    cli.add_command(command)


def main() -> None:
    """Run a command; a problem is one line on stderr, never a traceback."""
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"viva-server: {problem}", err=True)
        sys.exit(_EXIT_SETTINGS)
    except VivaError as error:
        click.echo(f"viva-server: {error}", err=True)
        sys.exit(_exit_status(error))


def _exit_status(error: VivaError) -> int:
    is_away = isinstance(error, StoreUnavailableError)
    if is_away and not isinstance(error, StoreRefusedError):
        return _EXIT_UNAVAILABLE
    return _EXIT_FAILED
