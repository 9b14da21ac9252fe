"""The work behind the webhook: chats, sends and updates, a bounded number at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from viva_server.chat.runtime import Runtime
from viva_server.chat.service import ChatService
from viva_server.config import Config
from viva_server.counters import WhatsAppCounters
from viva_server.errors import StoreError
from viva_server.store.driver.database import Database
from viva_server.store.processes import release_work
from viva_server.whatsapp.conversation.outbox import Outbox, Send
from viva_server.whatsapp.conversation.turns import Claim, Turns
from viva_server.whatsapp.conversation.updates import Updates
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.evolution.client import CLOSED_REASONS, EvolutionClient
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_STEP_SECONDS = 1.0
"""For a loop's present step at a stop; a statement takes milliseconds."""
_ORPHAN_SECONDS = 5.0


class Worker:
    """Answers on WhatsApp. Whatever it works on is a row that it owns.

    Owns its tasks; the runtime, the chat service and the client stay the caller's.
    Start it after the runtime. To stop: `finish` before the runtime is drained, so
    that nothing new is begun, `close` after it.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        runtime: Runtime,
        chat: ChatService,
        client: EvolutionClient,
        counters: WhatsAppCounters,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._limit = config.whatsapp_turns
        self._updates = Updates(database, Rules.of(config), counters)
        self._outbox = Outbox(database, client, counters)
        self._turns = Turns(
            config,
            database,
            chat,
            typist=client if config.whatsapp_typing else None,
            counters=counters,
            on_sends=self._look_for_sends,
            health=runtime.health,
        )
        self._woken = {name: asyncio.Event() for name in ("turns", "sends", "updates")}
        self._opened: set[str] = set()
        self._ending: set[str] = set()
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._orphans: asyncio.Task[None] | None = None
        self._working: dict[Claim, asyncio.Task[None]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    @property
    def turns(self) -> int:
        """How many chats this process works on now."""
        return len(self._working)

    def start(self) -> None:
        """Begin to look for work."""
        steps: dict[str, Callable[[], Awaitable[bool]]] = {
            "turns": self._claim_chats,
            "sends": self._claim_sends,
            "updates": self._updates.step,
        }
        for name, step in steps.items():
            loop = self._repeat(name, step)
            self._loops[name] = asyncio.create_task(loop, name=f"whatsapp {name}")
        self._orphans = asyncio.create_task(self._collect_orphans())

    def look_for_updates(self) -> None:
        """Look now for what Evolution told, and not at the next turn of the clock."""
        self._woken["updates"].set()

    def note(self, form: NormalForm) -> None:
        """Tell of an event: an instance that opens gets at once what waits for that."""
        if form["kind"] == "connection" and form.get("state") == "open":
            self._opened.add(form.get("instance", ""))
            self._look_for_sends()

    def _look_for_sends(self) -> None:
        self._woken["sends"].set()

    async def finish(self) -> None:
        """Begin no more turns; those under way, and the sends, go on."""
        await self._end_loop("turns")

    async def close(self, within_seconds: float) -> None:
        """End all work and leave what is not done to the next process. Idempotent.

        A request that is cut by this has an unknown outcome.
        """
        for name in list(self._loops):
            await self._end_loop(name)
        tasks = {*self._working.values(), *self._sending.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=within_seconds)
        if self._orphans is not None:
            tasks.add(self._orphans)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._turns.close()
        with contextlib.suppress(StoreError):
            await release_work(self._database, self._runtime.ownership.id)

    async def _end_loop(self, name: str) -> None:
        """End a loop behind its present step: nobody would know of a cut claim."""
        self._ending.add(name)
        self._woken[name].set()
        if (task := self._loops.pop(name, None)) is not None:
            await asyncio.wait({task}, timeout=_STEP_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[bool]]) -> None:
        """Repeat a step, at once while it finds work."""
        woken = self._woken[name]
        while name not in self._ending:
            woken.clear()
            found = False
            try:
                found = await step()
            except StoreError as error:
                logger.debug("No look for work of WhatsApp: %s", error)
            except Exception:
                logger.exception("A look for work of WhatsApp failed")
            if not found and name not in self._ending:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await woken.wait()

    async def _claim_chats(self) -> bool:
        free = self._limit - len(self._working)
        if free <= 0:
            return False
        owner = self._runtime.ownership.id
        rows = await self._database.fetch("claim_chats", owner=owner, chats=free)
        for row in rows:
            claim = Claim(owner, row.instance, row.jid)
            _hold(self._working, claim, self._turns.work(claim))
        return bool(rows)

    async def _wake_sends(self) -> None:
        opened = list(self._opened)
        if opened:
            await self._database.execute(
                "wake_sends", instances=opened, reasons=list(CLOSED_REASONS)
            )
            self._opened.difference_update(opened)

    async def _claim_sends(self) -> bool:
        await self._wake_sends()
        free = self._limit - len(self._sending)
        if free <= 0:
            return False
        owner = self._runtime.ownership.id
        rows = await self._database.fetch("claim_sends", owner=owner, sends=free)
        for row in rows:
            send = Send._make(row)
            _hold(self._sending, send.id, self._send(owner, send))
        return bool(rows)

    async def _send(self, owner: str, send: Send) -> None:
        await self._outbox.send(owner, send)
        self._look_for_sends()

    async def _collect_orphans(self) -> None:
        """Give back what this process owns and does not work on.

        A claim whose answer was lost may have been committed all the same.
        """
        suspects: set[Claim | str] = set()
        while True:
            await asyncio.sleep(_ORPHAN_SECONDS)
            owner = self._runtime.ownership.id
            try:
                orphans = await self._find_orphans(owner)
                for orphan in orphans & suspects:
                    await self._give_back(owner, orphan)
                suspects = orphans
            except StoreError as error:
                logger.debug("No look for orphaned work: %s", error)

    async def _find_orphans(self, owner: str) -> set[Claim | str]:
        chats = await self._database.fetch("load_claimed", owner=owner)
        sends = await self._database.fetch("load_sending", owner=owner)
        claims = {Claim(owner, row.instance, row.jid) for row in chats}
        ids = {row.id for row in sends}
        return (claims - self._working.keys()) | (ids - self._sending.keys())

    async def _give_back(self, owner: str, orphan: Claim | str) -> None:
        logger.warning("Giving back what nobody works on: %s", orphan)
        if isinstance(orphan, Claim):
            await self._turns.release(orphan, 0.0)
        else:
            await self._database.execute(
                "give_back_sends", owner=owner, outbox_ids=[orphan]
            )


def _hold(
    tasks: dict[Any, asyncio.Task[None]], key: object, work: Coroutine[Any, Any, None]
) -> None:
    """Run work as a task that is held until it ends."""
    task = asyncio.create_task(work)
    tasks[key] = task

    def let_go(ended: asyncio.Task[None]) -> None:
        if tasks.get(key) is ended:
            del tasks[key]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.error("Work of WhatsApp failed", exc_info=error)

    task.add_done_callback(let_go)
