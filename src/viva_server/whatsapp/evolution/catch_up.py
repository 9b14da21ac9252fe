"""Messages that no webhook brought: asked for at Evolution's own store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from viva_server.config import Config
from viva_server.errors import EvolutionError, StoreError
from viva_server.store.driver.database import Database
from viva_server.whatsapp.events.json_values import (
    Object,
    as_epoch,
    as_flag,
    as_int,
    as_object,
    as_objects,
    pick_text,
)
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.inbox import Inbox
from viva_server.whatsapp.ingress.secrets import redact

logger = logging.getLogger(__name__)

PAGE_ROWS: Final = 50
MAX_ROWS: Final = 5000

_LIMITS_OF_1: Final = (500, 2000, MAX_ROWS)
_MAX_BACK_SECONDS: Final = 3 * 86_400.0
# What Evolution stores late, and the difference of the clocks.
_OVERLAP_SECONDS: Final = 120.0
_MAX_INSTANCES: Final = 200
_BATCH_ROWS: Final = 100
_CONNECTED: Final = frozenset({"connection.update", "Connected"})


class CatchUp:
    """Puts what Evolution has stored and never delivered through the inbox.

    It looks when it is started, when an instance connects again, and every ten
    minutes: as far back as the outage was long, three days at most, and at least as
    far as a message is still answered. A message that came before has no effect, so
    any number of processes may do it at once.

    Only instances that have delivered a message are asked about: others on the same
    Evolution may be other people's.

    Args:
        config: whose webhooks' secrets say that anything is to be answered at all.
        database, inbox, client: stay their caller's.
        answerable_seconds: how old a message may be to be answered.
        every_seconds: between two looks.
        connected_seconds: from a connection to the look for what it missed.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        inbox: Inbox,
        client: EvolutionClient,
        *,
        answerable_seconds: float = 3600.0,
        every_seconds: float = 600.0,
        connected_seconds: float = 5.0,
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._client = client
        self._is_trusted = bool(config.webhook_secret) or config.webhook_open
        self._secrets = (*config.webhook_secret, config.evolution_api_key or "")
        self._least_seconds = answerable_seconds
        self._every_seconds = every_seconds
        self._connected_seconds = connected_seconds
        self._connected: set[str] = set()
        self._wake = asyncio.Event()
        self._seen_until: float | None = None
        self._looked_at: dict[str, float] = {}

    def note(self, delivery: Delivery) -> None:
        """Tell of a delivery that came: an instance that connects is looked at soon."""
        form = delivery.form
        if form["event"] in _CONNECTED and form.get("state") == "open":
            self._connected.add(form.get("instance", ""))
            self._wake.set()

    async def run(self) -> None:
        """Look until it is cancelled; raises nothing else.

        Start it before webhooks are taken: the last one in the inbox tells how long the
        outage was. Where nothing may be answered it ends at once.
        """
        instances: Sequence[str] | None = None
        next_full = asyncio.get_running_loop().time() + self._every_seconds
        while self._is_trusted:
            try:
                await self.look(instances)
            except Exception:
                logger.exception("the look for missed messages failed")
            instances = await self._connections(next_full)
            if instances is None:
                next_full += self._every_seconds

    async def look(self, instances: Sequence[str] | None = None) -> int:
        """Look at instances, by default at all known ones, and count what was missing.

        What cannot be asked or stored now is left for the next look, and logged.
        """
        try:
            if self._seen_until is None:
                self._seen_until = await self._last_delivery()
            known = await self._database.fetch("find_instances", most=_MAX_INSTANCES)
        except StoreError as error:
            logger.warning("no look for missed messages: %s", error)
            return 0
        names = [row.instance for row in known]
        wanted = names if instances is None else [n for n in names if n in instances]
        return sum([await self._look_at(name) for name in wanted])

    async def _last_delivery(self) -> float:
        row = await self._database.fetch_one("seconds_since_webhook")
        seconds = None if row is None else row.seconds
        return time.time() - (seconds or 0.0)

    async def _connections(self, until: float) -> list[str] | None:
        """Wait for instances that connect; None: until the time is over."""
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            return None
        await asyncio.sleep(self._connected_seconds)
        self._wake.clear()
        names, self._connected = list(self._connected), set()
        return names

    async def _look_at(self, instance: str) -> int:
        now = time.time()
        try:
            rows = await stored_messages(
                self._client, instance, self._since(instance, now)
            )
            missing = await self._missing(instance, rows)
            await self._add(instance, missing)
        except EvolutionError as error:
            logger.info("no stored messages of %r: %s", instance, error.reason)
            return 0
        except StoreError as error:
            logger.warning("missed messages of %r wait: %s", instance, error)
            return 0
        self._looked_at[instance] = now
        if missing:
            logger.info("%d messages of %r were missed", len(missing), instance)
        return len(missing)

    def _since(self, instance: str, now: float) -> datetime:
        last = self._looked_at.get(instance, self._seen_until or now)
        back = max(self._least_seconds, now - last + _OVERLAP_SECONDS)
        return datetime.fromtimestamp(now - min(back, _MAX_BACK_SECONDS), UTC)

    async def _missing(
        self, instance: str, rows: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        ids = [_id_of(row) for row in rows]
        if not ids:
            return []
        found = await self._database.fetch(
            "find_stored_messages", instance=instance, message_ids=ids
        )
        stored = {row.message_id for row in found}
        return [row for row in rows if _id_of(row) not in stored]

    async def _add(self, instance: str, rows: Sequence[dict[str, Any]]) -> None:
        """Store rows, oldest first, as webhooks that bring them."""
        for start in range(0, len(rows), _BATCH_ROWS):
            batch = rows[start : start + _BATCH_ROWS]
            deliveries = await asyncio.to_thread(self._deliveries, instance, batch)
            adding = [self._inbox.add(delivery) for delivery in deliveries]
            for added in await asyncio.gather(*adding, return_exceptions=True):
                if isinstance(added, BaseException):
                    raise added

    def _deliveries(
        self, instance: str, rows: Sequence[dict[str, Any]]
    ) -> list[Delivery]:
        return [
            make_delivery(
                "",
                "",
                {"User-Agent": "viva-server catch-up"},
                {"event": _event_of(row), "instance": instance, "data": row},
                trusted=self._is_trusted,
                secrets=self._secrets,
            )
            for row in rows
        ]


def _id_of(row: dict[str, Any]) -> str:
    return pick_text(as_object(row.get("key")), "id") or ""


def _event_of(row: dict[str, Any]) -> str:
    """Return the event that would have brought a message.

    Own ones as `send.message`: most are this server's, and it settles a send whose
    answer was lost. A person's from the phone has the same effect under either name.
    """
    own = as_flag(as_object(row.get("key")).get("fromMe"))
    return "send.message" if own else "messages.upsert"


class _Rows:
    """Gathers rows, newest first, until one is older than `since`."""

    def __init__(self, since: datetime) -> None:
        self._since = int(since.timestamp())
        self._found: dict[str, tuple[int, dict[str, Any]]] = {}
        self.has_older = False

    def add(self, rows: list[Object]) -> None:
        for row in rows:
            message_id = pick_text(as_object(row.get("key")), "id")
            moment = as_epoch(row.get("messageTimestamp"))
            if message_id is None or moment is None:
                continue
            if moment < self._since:
                self.has_older = True
            else:
                # Thumbnails as index maps are hundreds of KB of memory for each row.
                slim = redact(row, "messages.upsert")
                self._found.setdefault(message_id, (moment, slim))

    def oldest_first(self) -> list[dict[str, Any]]:
        # Reversed first: the order within one second is the reverse of Evolution's.
        rows = list(reversed(self._found.values()))
        rows.sort(key=lambda found: found[0])
        return [row for _, row in rows]


async def stored_messages(
    client: EvolutionClient, instance: str, since: datetime
) -> list[dict[str, Any]]:
    """Return what Evolution stored since a time, oldest first, 5000 at most.

    Each is in the form of a messages.upsert's `data`, own messages among them. Of more
    the newest are kept, and the log says so. 2.2 and later look by time; 2.0 and 2.1
    give all, newest first, and 1.x one list.

    Raises:
        EvolutionError: it cannot be asked, or its answer cannot be read.
    """
    rows = _Rows(since)
    where = {"messageTimestamp": _span(since)}
    for page in range(1, MAX_ROWS // PAGE_ROWS + 1):
        body = {"where": where, "page": page, "offset": PAGE_ROWS}
        answer = await client.find_messages(instance, body)
        if isinstance(answer, list):
            await _read_list(client, instance, rows)
            return rows.oldest_first()
        found = as_object(as_object(answer).get("messages"))
        if not isinstance(found.get("records"), list):
            raise EvolutionError("strange_answer")
        records = as_objects(found["records"])
        await asyncio.to_thread(rows.add, records)
        if rows.has_older or not records or page >= (as_int(found.get("pages")) or 0):
            break
    else:
        _warn_of_more()
    return rows.oldest_first()


async def _read_list(client: EvolutionClient, instance: str, rows: _Rows) -> None:
    """Read 1.x, which knows a limit only; a `where` it does not know finds nothing."""
    for limit in _LIMITS_OF_1:
        answer = await client.find_messages(instance, {"limit": limit})
        found = as_objects(answer)
        await asyncio.to_thread(rows.add, found)
        if rows.has_older or len(found) < limit:
            return
    _warn_of_more()


def _warn_of_more() -> None:
    logger.warning("more than %d messages are stored; the oldest are left", MAX_ROWS)


def _span(since: datetime) -> dict[str, str]:
    # Both ends, or 2.2+ ignores them; a day ahead, whatever its clock says.
    until = datetime.now(UTC) + timedelta(days=1)
    return {"gte": _iso(since), "lte": _iso(until)}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
