"""The work behind the webhook: chats, sends and news, a bounded number at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from viva_server.chat.runtime import Runtime
from viva_server.chat.service import ChatService
from viva_server.config import Config
from viva_server.errors import StoreError
from viva_server.store import outbox as sends_store
from viva_server.store import whatsapp_chats as chats_store
from viva_server.store.db import Database
from viva_server.store.processes import release_work
from viva_server.store.whatsapp_chats import Chat
from viva_server.whatsapp.conversation.outbox import Outbox
from viva_server.whatsapp.conversation.turns import Turns
from viva_server.whatsapp.conversation.updates import News
from viva_server.whatsapp.counters import WhatsAppCounters
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.rules import Rules

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_STEP_SECONDS = 1.0
"""For a loop's present step at a stop; a statement takes milliseconds."""
_STRAY_SECONDS = 5.0


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
        self._news = News(database, Rules.of(config))
        self._outbox = Outbox(database, client, counters)
        self._turns = Turns(
            config,
            database,
            chat,
            typist=client if config.whatsapp_typing else None,
            counters=counters,
            on_sends=self._look_for_sends,
        )
        self._nudged = {name: asyncio.Event() for name in ("turns", "sends", "news")}
        self._ending: set[str] = set()
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._strays: asyncio.Task[None] | None = None
        self._working: dict[Chat, asyncio.Task[None]] = {}
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
            "news": self._news.step,
        }
        for name, step in steps.items():
            loop = self._repeat(name, step)
            self._loops[name] = asyncio.create_task(loop, name=f"whatsapp {name}")
        self._strays = asyncio.create_task(self._collect_strays())

    def look_for_news(self) -> None:
        """Look now for what Evolution told, and not at the next turn of the clock."""
        self._nudged["news"].set()

    def _look_for_sends(self) -> None:
        self._nudged["sends"].set()

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
        if self._strays is not None:
            tasks.add(self._strays)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._turns.close()
        with contextlib.suppress(StoreError):
            await release_work(self._database, self._runtime.ownership.id)

    async def _end_loop(self, name: str) -> None:
        """End a loop behind its present step: nobody would know of a cut claim."""
        self._ending.add(name)
        self._nudged[name].set()
        if (task := self._loops.pop(name, None)) is not None:
            await asyncio.wait({task}, timeout=_STEP_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[bool]]) -> None:
        """Repeat a step, at once while it finds work."""
        nudged = self._nudged[name]
        while name not in self._ending:
            nudged.clear()
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
                        await nudged.wait()

    async def _claim_chats(self) -> bool:
        free = self._limit - len(self._working)
        if free <= 0:
            return False
        owner = self._runtime.ownership.id
        claimed = await chats_store.claim_chats(self._database, owner, chats=free)
        for chat in claimed:
            _keep(self._working, chat, self._turns.work(owner, chat))
        return bool(claimed)

    async def _claim_sends(self) -> bool:
        free = self._limit - len(self._sending)
        if free <= 0:
            return False
        owner = self._runtime.ownership.id
        claimed = await sends_store.claim_sends(self._database, owner, sends=free)
        for send in claimed:
            _keep(self._sending, send.id, self._send(owner, send))
        return bool(claimed)

    async def _send(self, owner: str, send: sends_store.Send) -> None:
        await self._outbox.send(owner, send)
        self._look_for_sends()

    async def _collect_strays(self) -> None:
        """Give back what this process owns and does not work on.

        A claim whose answer was lost may have been committed all the same.
        """
        suspects: set[Chat | str] = set()
        while True:
            await asyncio.sleep(_STRAY_SECONDS)
            owner = self._runtime.ownership.id
            try:
                strays = await self._find_strays(owner)
                for stray in strays & suspects:
                    await self._give_back(owner, stray)
                suspects = strays
            except StoreError as error:
                logger.debug("No look for stray work: %s", error)

    async def _find_strays(self, owner: str) -> set[Chat | str]:
        chats = await chats_store.load_claimed(self._database, owner)
        sends = await sends_store.load_sending(self._database, owner)
        return (chats - self._working.keys()) | (sends - self._sending.keys())

    async def _give_back(self, owner: str, stray: Chat | str) -> None:
        logger.warning("Giving back what nobody works on: %s", stray)
        if isinstance(stray, Chat):
            await chats_store.release_chat(self._database, owner, stray, 0.0)
        else:
            await sends_store.give_back_sends(self._database, owner, [stray])


def _keep(
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
