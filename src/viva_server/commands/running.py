"""What commands that run for long have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import click

from viva_server.logs import buffered_log


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


@contextlib.contextmanager
def log_to_stderr(level: str) -> Iterator[None]:
    """Write the log of this level and above to stderr while the block runs.

    Raises:
        click.BadParameter: there is no such level.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise click.BadParameter(f"{level} is no level", param_hint="--log-level")
    with buffered_log(level.upper()):
        yield
