"""`viva-server doctor`: is everything there that a server needs?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import click

from viva_server.commands.machine import check_machine
from viva_server.commands.model import check_model
from viva_server.commands.opening import find_dsn
from viva_server.config import Config
from viva_server.errors import ConfigError, EmbeddedPostgresError, StoreError
from viva_server.store.checks import Check, check_database
from viva_server.store.driver.database import Database
from viva_server.whatsapp.evolution.doctor import check_evolution


@click.command("doctor", short_help="Check that all is in order, one line each.")
@click.option("--offline", is_flag=True, help="Leave the model and Evolution out.")
def doctor_command(offline: bool) -> None:
    """Check settings, machine, database, model and webhook: one line each.

    It asks the model one short question, which costs a few tokens. Ends with 1 if any
    check fails; a warning is worth a look. It can run beside the server.
    """
    if not asyncio.run(_examine(offline=offline)):
        sys.exit(1)


async def _examine(*, offline: bool) -> bool:
    is_fine = True
    async for check in _checks(offline=offline):
        word = "FAIL" if not check.ok else "warn" if check.warn else "ok"
        name, detail = (" ".join(text.split()) for text in (check.name, check.detail))
        click.echo(f"{word:<4}  {name:<16}  {detail}")
        is_fine = is_fine and check.ok
    return is_fine


async def _checks(*, offline: bool) -> AsyncIterator[Check]:
    try:
        config = Config.from_env()
    except ConfigError as error:
        for problem in error.problems:
            yield Check("settings", False, problem)
        return
    yield Check("settings", True, "can be used")
    for check in check_machine(config):
        yield check
    for check in await _check_store(config):
        yield check
    if not offline:
        yield await check_model(config)
    yield _webhook(config)
    if not offline:
        for check in await check_evolution(config):
            yield check


async def _check_store(config: Config) -> list[Check]:
    if config.database_url is None and not (config.data_dir / "postgres").exists():
        return [_future_database(config)]
    try:
        async with AsyncExitStack() as stack:
            dsn, _ = await find_dsn(config, stack)
            database = Database(dsn, pool_size=2, application_name="viva_server doctor")
            await database.open()
            stack.push_async_callback(database.close)
            return await check_database(database, migrates=config.auto_migrate)
    except ConfigError as error:
        return [Check("database", False, problem) for problem in error.problems]
    except (EmbeddedPostgresError, StoreError) as error:
        return [Check("database", False, str(error))]


def _future_database(config: Config) -> Check:
    from viva_server.store.embedded.programs import find_programs  # noqa: PLC0415

    try:
        programs = find_programs(config.pg_bin)
    except EmbeddedPostgresError as error:
        return Check("database", False, str(error))
    detail = f"serve makes an embedded one with the programs in {programs}"
    return Check("database", True, detail)


def _webhook(config: Config) -> Check:
    if config.webhook_secret:
        return Check("webhook", True, "has a secret")
    if config.webhook_open:
        detail = "is open on purpose (VIVA_WEBHOOK_OPEN): anybody may have it answer"
        return Check("webhook", True, detail, warn=True)
    detail = "has no VIVA_WEBHOOK_SECRET: events are stored and never answered"
    # Who has set Evolution up wants answers.
    return Check("webhook", config.evolution_url is None, detail, warn=True)
