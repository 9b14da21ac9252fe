"""Evolution's sender of webhooks: its URLs, envelopes and laws of retrying."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from yarl import URL

OWN_JID = "5511900000000@s.whatsapp.net"

Law = Literal["2.0", "2.2", "2.3", "go"]

_FINAL_CODES = {400, 401, 403, 404, 422}


def waits_of(law: Law) -> list[float]:
    """Return the seconds before each attempt but the first."""
    if law == "2.0":
        return []
    if law == "2.2":
        return [30.0] * 9
    if law == "go":
        return [30.0] * 4
    return [min(5.0 * 2**n, 300.0) for n in range(9)]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One configured URL; without an instance it is the global one."""

    url: str
    instance: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    by_events: bool = False
    events: Sequence[str] = ()
    """Configuration names; none means all."""

    def wants(self, instance: str, event: str) -> bool:
        is_asked = not self.events or _config_name(event) in self.events
        return is_asked and self.instance in {None, instance}

    def target(self, event: str) -> str:
        """Plain concatenation, as Evolution does it."""
        tail = _config_name(event).replace("_", "-").lower()
        return f"{self.url}/{tail}" if self.by_events else self.url


def _config_name(event: str) -> str:
    return event.replace(".", "_").replace("-", "_").upper()


@dataclass(slots=True)
class Delivered:
    """What one delivery came to; a status of 0 is a failed connection."""

    url: str
    event: str
    body: dict[str, Any]
    statuses: list[int] = field(default_factory=list)
    is_done: bool = False
    ended_at: float = 0.0
    """When the last try had its answer, in epoch seconds."""

    @property
    def is_accepted(self) -> bool:
        return bool(self.statuses) and 200 <= self.statuses[-1] < 300


class WebhookSender:
    """Delivers events in the background; `scale` shortens the waits of the law."""

    def __init__(self, law: Law, scale: float) -> None:
        self.law: Law = law
        self.scale = scale
        self.webhooks: list[Webhook] = []
        self.deliveries: list[Delivered] = []
        self.request_seconds = 30.0
        self.root: dict[str, Any] = {}
        """What each body has at its root; a `sender` of None is left out."""
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self, event: str, instance: str, data: object, **root: object) -> None:
        """Start to deliver an event to all that want it; instance webhooks first."""
        body = {
            "event": event,
            "instance": instance,
            "data": data,
            "date_time": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.localtime()),
            "sender": OWN_JID,
            "server_url": "http://localhost:8080",
            "apikey": None,
            **self.root,
            **root,
        }
        if body["sender"] is None:
            del body["sender"]
        wanted = [hook for hook in self.webhooks if hook.wants(instance, event)]
        wanted.sort(key=lambda hook: hook.instance is None)
        if wanted:
            task = asyncio.create_task(self._deliver_all(wanted, event, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settled(self, within_seconds: float = 30.0) -> None:
        """Wait until nothing is being delivered.

        Raises:
            TimeoutError: something still is.
        """
        async with asyncio.timeout(within_seconds):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    async def forget(self) -> None:
        """Lose all retries, as a restart of Evolution does."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.forget()
        if self._session is not None:
            await self._session.close()

    async def _deliver_all(
        self, hooks: Sequence[Webhook], event: str, body: dict[str, Any]
    ) -> None:
        for hook in hooks:
            await self._deliver(hook, event, {**body, "destination": hook.url})

    async def _deliver(self, hook: Webhook, event: str, body: dict[str, Any]) -> None:
        delivered = Delivered(hook.target(event), event, body)
        self.deliveries.append(delivered)
        for wait in (0.0, *waits_of(self.law)):
            await asyncio.sleep(wait * self.scale)
            status = await self._post(delivered.url, hook.headers, body)
            delivered.statuses.append(status)
            delivered.ended_at = time.time()
            is_final = self.law == "2.3" and status in _FINAL_CODES
            if delivered.is_accepted or is_final:
                break
        delivered.is_done = True

    async def _post(
        self, url: str, headers: Mapping[str, str], body: dict[str, Any]
    ) -> int:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        headers = {"User-Agent": "axios/1.7.9", **headers}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(
                URL(url, encoded=True),
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **headers},
                timeout=aiohttp.ClientTimeout(self.request_seconds),
            ) as response:
                await response.read()
                return response.status
        return 0
