"""`viva-server worker`: answers on WhatsApp without serving HTTP."""

from __future__ import annotations

from dataclasses import replace

import click

from viva_server.commands.running import log_to_stderr, run
from viva_server.config import Config
from viva_server.errors import ConfigError
from viva_server.standalone import work


@click.command("worker")
@click.option("--log-level", default="INFO", show_default=True, metavar="LEVEL")
def worker_command(log_level: str) -> None:
    """Answer on WhatsApp until SIGTERM or Ctrl-C, without serving HTTP.

    It takes its work from VIVA_DATABASE_URL, where `serve` stores the webhooks.
    """
    with log_to_stderr(log_level):
        run(work(_checked(Config.from_env())))


def _checked(config: Config) -> Config:
    problems = []
    if config.database_url is None:
        problems.append("VIVA_DATABASE_URL is required: nobody else uses the embedded")
    if config.evolution_url is None:
        problems.append("VIVA_EVOLUTION_URL is required: nothing can be sent without")
    if problems:
        raise ConfigError(problems)
    return replace(config, worker=True)
