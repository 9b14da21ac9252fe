"""Everything that runs behind the routes, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from viva_server.chat.runtime import Runtime
from viva_server.chat.service import ChatService
from viva_server.chat.sessions import SessionService
from viva_server.config import Config
from viva_server.counters import LoopLag, WhatsAppCounters
from viva_server.errors import EmbeddedPostgresError, StoreError
from viva_server.responders import (
    OpenAIResponder,
    Responder,
    SystemPrompt,
    local_responder,
    model_session,
)
from viva_server.store.driver.database import Database
from viva_server.store.driver.tasks import end_task
from viva_server.store.health import FAILING_SECONDS
from viva_server.store.migrate import migrate, schema_state
from viva_server.store.retention import DAY_SECONDS, Purge, was_purged
from viva_server.whatsapp.conversation.worker import Worker
from viva_server.whatsapp.evolution.catch_up import CatchUp
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.ingress.heavy_bodies import HeavyBodies
from viva_server.whatsapp.ingress.inbox import Inbox, is_pending
from viva_server.whatsapp.rules import Rules

if TYPE_CHECKING:
    from viva_server.store.embedded.server import EmbeddedPostgres

logger = logging.getLogger(__name__)

_RESTART_SECONDS = 5.0
_LEAST_SECONDS = 0.2
# "purg" in ASCII; no process's lock and not that of the migrations.
_PURGE_LOCK_KEY = 0x70757267
_FIRST_PURGE_SECONDS = 60.0  # a server that starts has other things to do
_PURGE_LOOK_SECONDS = 3600.0


class Services:
    """One viva_server: its database, chat, inbox, WhatsApp worker and daily purge.

    Made without a running loop; `running()` opens everything it uses and closes it
    again. It owns its database pool, its embedded PostgreSQL and its clients of the
    model and of Evolution; the responder of a host is never closed.
    """

    def __init__(self, config: Config, respond: Responder | None = None) -> None:
        self.config = config
        self._respond = respond
        self._embedded = _embedded_postgres(config)
        self.database = Database(
            self._embedded.dsn if self._embedded else config.database_url or ""
        )
        self.runtime = Runtime(config, self.database)
        self.chat = ChatService(config, self.runtime)
        self.sessions = SessionService(self.database, self.chat)
        self.inbox = Inbox(
            self.database,
            rules=Rules.of(config),
            on_stored=self._tell_worker,
            health=self.runtime.health,
        )
        self.heavy_bodies = HeavyBodies()
        self.worker: Worker | None = None
        self._catch_up: CatchUp | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self.whatsapp_counters = WhatsAppCounters()
        self.loop_lag = LoopLag()
        self.retention = Retention(config, self.database)
        self._drained: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start; on the way out stop, if `drain` was not called before. Once only.

        Raises:
            ConfigError: the database, or the prompt's file, is none that can be used.
            SchemaError: the schema is old or newer, and may not be migrated.
            StoreUnavailableError: the database cannot be reached.
            EmbeddedPostgresError: the embedded one cannot be started.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.config.metrics:
                stack.push_async_callback(
                    end_task, asyncio.create_task(self.loop_lag.run())
                )
            await self._open_database(stack)
            await self._see_to_schema()
            responder = self._respond or await self._own_responder(stack)
            if self._embedded is not None:  # started here, so nobody else can live
                await self.runtime.recovery.close_found()
            await self.runtime.start()
            stack.push_async_callback(self.runtime.stop)
            self.retention.start()
            stack.push_async_callback(self.retention.stop)
            self.chat.start(responder)
            stack.push_async_callback(self.chat.join)
            self._start_worker(stack)
            stack.push_async_callback(self.drain)
            yield

    async def migrate_only(self) -> list[str]:
        """Bring the schema up to this version and close everything again.

        Gives the names of the applied migrations. Raises what `running` raises.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._open_database(stack)
            return await migrate(self.database)

    async def drain(self) -> None:
        """End and store all live replies and accepted webhooks. Idempotent.

        New work is refused, readers get their last event.

        All work with the database ends here, so that a host may close its resources
        afterwards. Takes at most `drain_seconds` and twice `shutdown_seconds`. A turn
        of WhatsApp that is cut so is run again by the next process.
        """
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain())
        await asyncio.shield(self._drained)

    async def _drain(self) -> None:
        await self.retention.stop()
        if self._catching_up is not None:
            await end_task(self._catching_up)
        loop = asyncio.get_running_loop()
        seconds = self.config.drain_seconds + self.config.shutdown_seconds
        until = loop.time() + seconds
        if self.worker is not None:
            await self.worker.finish()
        await self.runtime.drain()
        if self.worker is not None:
            await self.worker.close(max(until - loop.time(), _LEAST_SECONDS))
        await self.heavy_bodies.close()
        await self.inbox.close()

    def _start_worker(self, stack: contextlib.AsyncExitStack) -> None:
        """Start to answer on WhatsApp, where this process is to do it."""
        config = self.config
        if config.evolution_url is None or not config.worker:
            return
        if not config.webhook_secret and not config.webhook_open:
            logger.warning(
                "Without VIVA_WEBHOOK_SECRET events are stored, but nobody is answered"
            )
        assert config.evolution_api_key is not None, "checked by Config"
        client = EvolutionClient(str(config.evolution_url), config.evolution_api_key)
        stack.push_async_callback(client.close)
        self.worker = Worker(
            config,
            self.database,
            self.runtime,
            self.chat,
            client,
            self.whatsapp_counters,
        )
        self.worker.start()
        self._catch_up = CatchUp(
            config,
            self.database,
            self.inbox,
            client,
            answerable_seconds=config.whatsapp_max_age_seconds,
        )
        self._catching_up = asyncio.create_task(
            self._catch_up.run(), name="viva catch-up"
        )

    def _tell_worker(self, deliveries: Sequence[Delivery]) -> None:
        if self.worker is not None:
            if any(map(is_pending, deliveries)):
                self.worker.look_for_updates()
            for delivery in deliveries:
                self.worker.note(delivery.form)
        if self._catch_up is not None:
            for delivery in deliveries:
                self._catch_up.note(delivery)

    @property
    def is_ready(self) -> bool:
        """Whether new work can be taken; answered from memory."""
        runtime = self.runtime
        return (
            not runtime.is_stopping
            and runtime.health.is_well
            # What a probe that writes nothing does not see: a full disk, for instance.
            and runtime.journal.stuck_seconds < FAILING_SECONDS
        )

    async def _open_database(self, stack: contextlib.AsyncExitStack) -> None:
        if self._embedded is not None:
            await self._embedded.start()
            stack.push_async_callback(self._embedded.stop)
            keeper = asyncio.create_task(_keep_running(self._embedded))
            stack.push_async_callback(end_task, keeper)
        await self.database.open()
        stack.push_async_callback(self.database.close)
        await self.database.check_server()

    async def _see_to_schema(self) -> None:
        if self.config.auto_migrate:
            for name in await migrate(self.database):
                logger.info("Applied migration %s", name)
        (await schema_state(self.database)).require_current()

    async def _own_responder(self, stack: contextlib.AsyncExitStack) -> Responder:
        config = self.config
        if config.model_url is None:
            return local_responder
        session = model_session()
        stack.push_async_callback(session.close)
        prompt = SystemPrompt(config.system_prompt_file)
        return OpenAIResponder.of(config, session, system_prompt=prompt)


def _embedded_postgres(config: Config) -> EmbeddedPostgres | None:
    if config.database_url is not None:
        return None
    # Imported only where it is used: a host with a database of its own never needs it.
    from viva_server.store.embedded.server import EmbeddedPostgres  # noqa: PLC0415

    return EmbeddedPostgres(config.data_dir, pg_bin=config.pg_bin)


async def _keep_running(embedded: EmbeddedPostgres) -> None:
    """Start the embedded PostgreSQL again whenever it has ended."""
    while True:
        status = await embedded.wait()
        logger.error("The embedded PostgreSQL ended with %d; starting again", status)
        while not await _starts(embedded):  # noqa: ASYNC110
            await asyncio.sleep(_RESTART_SECONDS)


async def _starts(embedded: EmbeddedPostgres) -> bool:
    try:
        await embedded.start()
    except EmbeddedPostgresError as error:
        logger.error("It does not start: %s", error)
        return False
    return True


class Retention:
    """Purges once a day, in any one of the processes on a database.

    Does not own the database. When the last purge was is in the database, so a server
    that is started every hour purges once a day, too.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        *,
        first_seconds: float = _FIRST_PURGE_SECONDS,
    ) -> None:
        self._config = config
        self._database = database
        self._first_seconds = first_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look every hour whether a purge is due."""
        self._task = asyncio.create_task(self._run(), name="viva retention")

    async def stop(self) -> None:
        """End; what is removed by then stays removed. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def purge_if_due(self) -> bool:
        """Purge unless that was done within a day, or another process is at it.

        Gives whether it purged. Raises StoreError or one of its kinds.
        """
        if await was_purged(self._database, DAY_SECONDS):
            return False
        connection = await self._database.connect()
        try:
            row = await connection.fetch_one(
                "take_purge_lock", lock_key=_PURGE_LOCK_KEY
            )
            if row is None or not row.held:
                return False
            # Another process may have ended its purge between the look and the lock.
            if await was_purged(self._database, DAY_SECONDS):
                return False
            await self._purge()
        finally:
            await connection.close()
        return True

    async def _purge(self) -> None:
        purge = Purge(
            self._database,
            session_days=self._config.retention_days,
            inbox_days=self._config.inbox_retention_days,
        )
        await purge.run()
        if any(purge.counts.values()):
            done = ", ".join(
                f"{number} {what}" for what, number in purge.counts.items()
            )
            logger.info("Purged: %s", done)

    async def _run(self) -> None:
        await asyncio.sleep(self._first_seconds)
        while True:
            try:
                await self.purge_if_due()
            except StoreError as error:
                logger.warning("The purge goes on later: %s", error)
            await asyncio.sleep(_PURGE_LOOK_SECONDS)
