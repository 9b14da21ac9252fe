"""What Evolution API has stored: its messages, page by page, and its instances."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from viva_server.errors import EvolutionError
from viva_server.whatsapp.events.json_values import (
    Object,
    as_epoch,
    as_int,
    as_object,
    as_objects,
    pick_text,
)
from viva_server.whatsapp.evolution.outcomes import outcome_of_answer
from viva_server.whatsapp.evolution.rest import EvolutionRest
from viva_server.whatsapp.ingress.secrets import redact

logger = logging.getLogger(__name__)

PAGE_ROWS: Final = 50
MAX_ROWS: Final = 5000

_MAX_PAGE_BYTES: Final = 32 * 2**20
_LIMITS_OF_1: Final = (500, 2000, MAX_ROWS)


class _Rows:
    """Gathers rows, newest first, until one is older than `since`."""

    def __init__(self, since: datetime) -> None:
        self._since = int(since.timestamp())
        self._found: dict[str, tuple[int, dict[str, Any]]] = {}
        self.has_older = False

    def __len__(self) -> int:
        return len(self._found)

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


async def read_stored(
    rest: EvolutionRest, instance: str, since: datetime, seconds: float
) -> list[dict[str, Any]]:
    """Return the stored messages since a time, oldest first, 5000 at most.

    Of more the newest are kept, and the log says so. `seconds` is for each page. 2.2
    and later look by time; 2.0 and 2.1 give all, newest first, and 1.x one list.

    Raises:
        EvolutionError: it cannot be asked, or its answer cannot be read.
    """
    rows = _Rows(since)
    where = {"messageTimestamp": _span(since)}
    for page in range(1, MAX_ROWS // PAGE_ROWS + 1):
        body = {"where": where, "page": page, "offset": PAGE_ROWS}
        answer = await _find(rest, instance, body, seconds)
        if isinstance(answer, list):
            return await _read_list(rest, instance, rows, seconds)
        found = as_object(as_object(answer).get("messages"))
        if not isinstance(found.get("records"), list):
            raise EvolutionError("strange_answer")
        records = as_objects(found["records"])
        await asyncio.to_thread(rows.add, records)
        if rows.has_older or not records or page >= (as_int(found.get("pages")) or 0):
            return rows.oldest_first()
    logger.warning("more than %d messages are stored; the oldest are left", MAX_ROWS)
    return rows.oldest_first()


async def _read_list(
    rest: EvolutionRest, instance: str, rows: _Rows, seconds: float
) -> list[dict[str, Any]]:
    """Read 1.x, which knows a limit only; a `where` it does not know finds nothing."""
    for limit in _LIMITS_OF_1:
        answer = await _find(rest, instance, {"limit": limit}, seconds)
        found = as_objects(answer)
        await asyncio.to_thread(rows.add, found)
        if rows.has_older or len(found) < limit:
            return rows.oldest_first()
    logger.warning("more than %d messages are stored; the oldest are left", MAX_ROWS)
    return rows.oldest_first()


async def _find(
    rest: EvolutionRest, instance: str, body: dict[str, object], seconds: float
) -> object:
    answer = await rest.call(
        "POST",
        ("chat", "findMessages", instance),
        body,
        seconds=seconds,
        max_bytes=_MAX_PAGE_BYTES,
    )
    if not answer.is_ok:
        raise EvolutionError(outcome_of_answer(answer).reason)
    if not isinstance(answer.body, (dict, list)):
        raise EvolutionError("strange_answer")
    return answer.body


def _span(since: datetime) -> dict[str, str]:
    # Both ends, or 2.2+ ignores them; a day ahead, whatever its clock says.
    until = datetime.now(UTC) + timedelta(days=1)
    return {"gte": _iso(since), "lte": _iso(until)}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instance_names(body: object) -> list[str]:
    """Return the names in an answer to fetchInstances.

    2.x: `[{"name": …}]`; 1.x: `[{"instance": {"instanceName": …}}]`.
    """
    names = []
    for entry in as_objects(body):
        inner = as_object(entry.get("instance"))
        name = pick_text(entry, "name", "instanceName") or pick_text(
            inner, "instanceName", "name"
        )
        if name is not None:
            names.append(name)
    return names
