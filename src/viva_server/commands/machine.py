"""Checks of the machine and of the installation, for `viva-server doctor`."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from viva_server.api.limits import refuse_without_c_parser
from viva_server.config import Config
from viva_server.errors import ConfigError
from viva_server.responders import SystemPrompt
from viva_server.store.checks import Check

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
