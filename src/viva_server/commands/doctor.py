"""`viva-server doctor`: is everything there that a server needs?"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import click

from viva_server.commands.database import find_dsn
from viva_server.commands.http_server import refuse_without_c_parser
from viva_server.config import Config
from viva_server.errors import (
    ConfigError,
    EmbeddedPostgresError,
    RefusedError,
    ResponderError,
    StoreError,
)
from viva_server.responders import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    OpenAIResponder,
    SystemPrompt,
    model_session,
)
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


_FILES_OF_A_REPLY = 2  # a reader's socket and the model's
_OTHER_FILES = 100


def check_machine(config: Config) -> Iterator[Check]:
    """Check what needs no network; reads the data folder's modes, changes nothing."""
    yield _parser()
    yield _files(config)
    yield _folder(config)
    if config.system_prompt_file is not None:
        yield _prompt(config.system_prompt_file)


def _parser() -> Check:
    try:
        refuse_without_c_parser()
    except ConfigError as error:
        return Check("http parser", False, str(error))
    return Check("http parser", True, "aiohttp has its C parser")


def _files(config: Config) -> Check:
    needed = config.live_replies * _FILES_OF_A_REPLY + _OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Check("open files", True, "no limit")
    detail = f"up to {hard}; {config.live_replies} live replies need {needed}"
    return Check("open files", True, detail, warn=hard < needed)


def _folder(config: Config) -> Check:
    folder = config.data_dir
    needs_it = config.database_url is None
    if not folder.is_dir():
        where = f"{folder} is not there yet"
        return Check("data folder", True, where if needs_it else "is not needed")
    problems = [
        f"chmod {mode:o} {path}"
        for path, allowed, mode in (
            # Root's may be passed through by the user that PostgreSQL runs as.
            (folder, 0o711 if os.geteuid() == 0 else 0o700, 0o700),
            (folder / "jwt-secret", 0o600, 0o600),
        )
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & ~allowed & 0o077
    ]
    detail = f"open to others: {'; '.join(problems)}" if problems else str(folder)
    return Check("data folder", not problems, detail)


def _prompt(file: Path) -> Check:
    try:
        SystemPrompt(file)
    except ConfigError as error:
        return Check("system prompt", False, str(error))
    return Check("system prompt", True, str(file))


_NAME = "model"
_SECONDS = 60.0
_PROMPT = "Answer in one word."
_QUESTION = Conversation(
    messages=(ConversationMessage("user", "Say: ok"),),
    session_id="doctor",
    user_id="doctor",
    channel="web",
)


async def check_model(config: Config) -> Check:
    """Ask the model a short question, which costs a few tokens."""
    if config.model_url is None:
        return Check(_NAME, True, "none is set: the built-in responder answers")
    host = f"{config.model_url.host}:{config.model_url.port}"
    habits: set[str] = set()
    # The check says all that the responder would log.
    logging.getLogger("viva_server.responders").setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(_SECONDS):
            end = await _ask(config, habits)
    except TimeoutError:
        return Check(_NAME, False, f"{host} does not end its answer in {_SECONDS:g} s")
    except ConfigError as error:
        return Check(_NAME, False, str(error))
    except ResponderError as error:
        return Check(_NAME, False, _failure(host, error))
    seen = "; ".join(sorted(habits)) or "nothing unusual"
    detail = f"{host} answers as {config.model_name} ({end}); its habits: {seen}"
    return Check(_NAME, True, detail)


async def _ask(config: Config, habits: set[str]) -> str:
    """Ask, and say why the reply ended; collect what the server does."""
    async with model_session() as session:
        responder = OpenAIResponder.of(
            config,
            session,
            system_prompt=_PROMPT,
            on_end=lambda completion: habits.update(completion.habits),
        )
        try:
            async for _ in responder(_QUESTION):
                pass
        except EndOfReply as end:
            return end.finish_reason
    return "stop"


def _failure(host: str, error: ResponderError) -> str:
    hint = ""
    if isinstance(error, RefusedError):
        match error.status:
            case 401 | 403:
                hint = ": see VIVA_MODEL_API_KEY and VIVA_MODEL_HEADERS"
            case 404 | 405:
                hint = ": see VIVA_MODEL_NAME, and whether VIVA_MODEL_URL ends as …/v1"
    told = f" ({error.detail})" if error.detail else ""
    return f"{host}: {error}{told}{hint}"
