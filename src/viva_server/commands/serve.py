"""`viva-server serve` and `worker`: signals, limits, the way in and out."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import click
from aiohttp import web

from viva_server.api.request import generated_secret, identifier
from viva_server.api.routes import add_root_operations
from viva_server.app import (
    PREFIX,
    SERVICES,
    create_app,
    mount_operator_page,
    mount_page,
)
from viva_server.auth import JwtAuth
from viva_server.commands.http_server import (
    LimitedRunner,
    LimitedSite,
    refuse_without_c_parser,
)
from viva_server.commands.logs import buffered_log
from viva_server.config import Config
from viva_server.errors import ConfigError, VivaError
from viva_server.services import Services

logger = logging.getLogger(__name__)

LINK_TOKEN_SECONDS = 30 * 24 * 3600.0
"""Shorter: it opens everybody's phones, and replays."""

_BACKLOG = 1024  # aiohttp's 128 refuses a burst of reconnecting clients
_LEAST_FILES = 1024
# glibc's mallopt(3). By itself the threshold grows with each large block that is freed,
# to 32 MiB; below it a block lies among others, and what is freed there stays taken.
_M_MMAP_THRESHOLD = -3
_OWN_PAGES_BYTES = 256 * 2**10
_GC_THRESHOLD = 20_000  # new containers between two collections; Python's is 700


class AddressError(VivaError):
    """The address to listen on cannot be used."""


@click.command("serve", short_help="Serve until SIGTERM or Ctrl-C.")
@click.option(
    "--open-link",
    is_flag=True,
    help="Print the web chat's address with a token of 30 days for the user 'dono'. "
    "Only with the embedded database; it goes to the terminal, never to the log.",
)
@click.option("--log-level", default="INFO", show_default=True, metavar="LEVEL")
def serve_command(open_link: bool, log_level: str) -> None:
    """Serve until SIGTERM or Ctrl-C; live replies are stored before it ends.

    Listens on VIVA_HOST and VIVA_PORT (127.0.0.1, 8080).
    """
    with log_to_stderr(log_level):
        config = Config.from_env()
        if open_link and config.database_url is not None:
            raise ConfigError(["--open-link is refused with VIVA_DATABASE_URL"])

        def announce(address: str) -> None:
            if open_link:
                token = issue_token(config, "dono", ttl_seconds=LINK_TOKEN_SECONDS)
                click.echo(f"Abra o chat: {address}/#token={token}")

        run(serve(config, announce))


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


def issue_token(
    config: Config, user: str, *, ttl_seconds: float, scope: str | None = None
) -> str:
    """Sign a token for a user, with the first of the secrets or the generated one."""
    secrets = config.jwt_secret or (generated_secret(config),)
    return JwtAuth(secrets).issue(user, ttl_seconds, scope=scope)


def standalone_app(config: Config) -> web.Application:
    """Make the application that `viva-server serve` runs."""
    app = create_app(config)
    identify = identifier(config, None)
    add_root_operations(app, app[SERVICES], identify, prefix=PREFIX)
    mount_page(app)
    mount_operator_page(app)
    return app


async def serve(config: Config, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end and store all live replies.

    `announce` gets the server's address once it listens. A second signal ends the
    time that live replies have to finish by themselves.

    Raises:
        AddressError: the address cannot be listened on.
        VivaError: what `Services.running` raises.
    """
    refuse_without_c_parser()
    raise_file_limit()
    give_back_large_blocks()
    app = standalone_app(config)
    # Streams have ended in on_shutdown; aiohttp waits this time twice for what is left.
    runner = LimitedRunner(app, shutdown_timeout=config.shutdown_seconds / 5)
    signals = _Signals(app[SERVICES])
    with signals.handled():
        try:
            await runner.setup()
            _relax_gc()
            announce(await _listen(runner, config))
            await signals.stop.wait()
            logger.info("Stopping: live replies are ended and stored")
            await app[SERVICES].drain()
        finally:
            await runner.cleanup()
    logger.info("Stopped")


async def work(config: Config) -> None:
    """Answer on WhatsApp without HTTP, until SIGTERM or SIGINT; then as `serve` ends.

    Raises:
        VivaError: what `Services.running` raises.
    """
    raise_file_limit()
    services = Services(config)
    signals = _Signals(services)
    with signals.handled():
        async with services.running():
            _relax_gc()
            logger.info("Working")
            await signals.stop.wait()
            logger.info("Stopping: live replies are ended and stored")
    logger.info("Stopped")


async def _listen(runner: LimitedRunner, config: Config) -> str:
    site = LimitedSite(runner, config.host, config.port, backlog=_BACKLOG)
    try:
        await site.start()
    except (OSError, UnicodeError) as error:  # the second: no name of a host
        address = f"{config.host}:{config.port}"
        reason = getattr(error, "strerror", None) or str(error)
        raise AddressError(f"cannot listen on {address}: {reason}") from error
    host = f"[{config.host}]" if ":" in config.host else config.host
    port = runner.addresses[0][1]
    logger.info("Listening on http://%s:%d", host, port)
    return f"http://{host}:{port}"


def _relax_gc() -> None:
    """Collect cycles less often: thousands of live streams are no garbage.

    What is loaded by now stays for good, so it is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)


def raise_file_limit() -> None:
    """Raise the soft limit of open files: 2000 replies hold 4000 sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < _LEAST_FILES:
        logger.warning("Only %d files may be open: few streams will fit", hard)


class _Signals:
    """What SIGTERM and SIGINT do: stop, and at the second time hurry."""

    def __init__(self, services: Services) -> None:
        self.stop = asyncio.Event()
        self._services = services

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals for the time of a with block."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _receive(self) -> None:
        if self.stop.is_set():
            self._services.runtime.hurry()
        self.stop.set()


def give_back_large_blocks() -> None:
    """Let each large block be pages of its own, which go back when it is freed.

    For the whole process, so only for a program of our own. Without effect where the
    C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)


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
