"""Deliveries for an inbox, and a gate in front of its database."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.postgres import run_sql
from tests.waiting import until
from viva_server.errors import RowError, StoreUnavailableError
from viva_server.store.driver.database import Database
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery

_MESSAGE_ID = 9
_BODY = 13
"""Where these stand among the fields of a row."""


def message(number: int | str, text: str = "oi") -> Delivery:
    body = {
        "event": "messages.upsert",
        "instance": "loja",
        "data": {
            "key": {"remoteJid": "5511988887777@s.whatsapp.net", "id": f"M{number}"},
            "message": {"conversation": text},
        },
    }
    return make_delivery("/messages-upsert", "", {}, body, trusted=True)


def event(name: str) -> Delivery:
    return make_delivery("", "", {}, {"event": name, "instance": "a"}, trusted=True)


def edit(number: int | str) -> Delivery:
    data = {"key": {"id": f"E{number}"}, "type": 14}
    body = {"event": "messages.edited", "data": data}
    return make_delivery("", "", {}, body, trusted=True)


class Gate:
    """The database, with a gate in front that counts, holds back or refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.batches: list[list[str]] = []
        """The ids of the messages in each batch; without one, its event."""
        self.errors: list[Exception] = []
        self.refuses: Callable[[str], bool] = lambda _: False
        """Told the bodies of a batch."""
        self.loses_answer = False
        self.is_down = False
        self.opened = asyncio.Event()
        self.opened.set()

    async def fetch(self, query: str, /, **parameters: Any) -> Sequence[Any]:
        fields = _fields(parameters["deliveries"])
        self.batches.append([row[_MESSAGE_ID] or row[3] for row in fields])
        await self.opened.wait()
        if self.is_down:
            raise StoreUnavailableError
        if self.errors:
            raise self.errors.pop(0)
        if self.refuses(str([row[_BODY] for row in fields])):
            raise RowError("refused")
        rows = await self._database.fetch(query, **parameters)
        if self.loses_answer:
            self.loses_answer = False
            raise StoreUnavailableError(outcome_unknown=True)
        return rows


def _fields(deliveries: str) -> list[list[Any]]:
    """Give the rows of a batch; none of one that PostgreSQL cannot read either."""
    with contextlib.suppress(ValueError):
        return list(json.loads(deliveries))
    return []


def rows(url: str, columns: str = "message_id, deliveries") -> list[tuple[Any, ...]]:
    return run_sql(url, f"SELECT {columns} FROM viva.inbox ORDER BY id")


async def stored(url: str, count: int) -> None:
    await until(lambda: len(rows(url)) >= count)
