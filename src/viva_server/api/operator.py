"""Handlers of /viva/operator: how the service is, the dead and their replay."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from aiohttp import web

from viva_server.api import operator_answers as answers
from viva_server.api import wire
from viva_server.api.gate import read_json
from viva_server.api.identity import IdentifyCaller
from viva_server.api.operations import ADMIN_SCOPE
from viva_server.auth import require_scope
from viva_server.services import Services
from viva_server.store import operator as store
from viva_server.store.db import Database, Row
from viva_server.store.webhook_minutes import WebhookMinutes, WebhookRates
from viva_server.whatsapp.events.addresses import jids_of

logger = logging.getLogger(__name__)

_NOT_STORED = {"Cache-Control": "no-store"}

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class OperatorHandlers:
    """The routes behind the operator's page; each needs the scope admin."""

    def __init__(self, services: Services, identify: IdentifyCaller) -> None:
        self._services = services
        self._identify = identify
        self._minutes = WebhookMinutes(services.database)

    @property
    def _database(self) -> Database:
        return self._services.database

    async def overview(self, request: web.Request) -> web.StreamResponse:
        """Show how the whole service is now."""
        await self._admit(request)
        work = await store.count_work(self._database)
        minute = int(work.now.timestamp() // 60)
        processes, replies, messages, rates = await asyncio.gather(
            store.show_processes(self._database),
            store.show_replies(self._database),
            store.show_newest_messages(self._database),
            self._minutes.read(minute),
        )
        body = answers.Overview(
            now=work.now,
            process_id=self._services.runtime.ownership.id,
            processes=_shown(answers.ProcessItem, processes),
            replies=_shown(answers.ReplyItem, replies),
            webhooks=_webhooks(rates),
            work=_work(work),
            messages=_shown(answers.MessageState, messages),
        )
        return _answer(body)

    async def dead(self, request: web.Request) -> web.StreamResponse:
        """Show a page of what could not be answered, sent or applied."""
        await self._admit(request)
        cursor = answers.read_dead_query(request.query.items())
        place = store.Place() if cursor is None else store.Place._make(cursor)
        rows, following = await store.show_dead(self._database, place)
        body = answers.DeadPage(
            items=_shown(answers.DeadItem, rows),
            next="_".join(following) if following else None,
        )
        return _answer(body)

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Do some of the dead again."""
        await self._admit(request)
        # A JSON body is asked for by no form of another site, cookie or not.
        ids = answers.read_replay(await read_json(request))
        outcomes = await store.replay_all(self._database, ids)
        done = sum(outcome == "replayed" for _, outcome in outcomes)
        logger.info("An operator replayed %d of %d", done, len(ids))
        items = [answers.ReplayItem(id=i, outcome=outcome) for i, outcome in outcomes]
        return _answer(answers.ReplayAnswer(items=items))

    async def search(self, request: web.Request) -> web.StreamResponse:
        """Show the newest messages of a phone.

        Raises:
            WireError: 422, it is no phone number.
        """
        await self._admit(request)
        jids = jids_of(answers.read_search(await read_json(request)))
        if not jids:
            raise answers.no_phone()
        rows = await store.show_messages_of(self._database, jids)
        return _answer(
            answers.SearchAnswer(messages=_shown(answers.MessageState, rows))
        )

    async def _admit(self, request: web.Request) -> None:
        """Raise AuthError for no token, or one without the scope admin."""
        require_scope(await self._identify(request), ADMIN_SCOPE)


def _shown(shape: type[_Shape], rows: list[Row]) -> list[_Shape]:
    return [msgspec.convert(row._asdict(), shape) for row in rows]


def _webhooks(rates: WebhookRates) -> answers.WebhookItem:
    return answers.WebhookItem(
        first_minute=datetime.fromtimestamp(rates.first_minute * 60, UTC),
        is_capped=rates.is_capped,
        events=[
            answers.EventItem(event=e, counts=counts) for e, counts in rates.events
        ],
    )


def _work(row: Row) -> answers.WorkItem:
    counts = {**row._asdict(), "counted_up_to": store.COUNTED_UP_TO}
    return msgspec.convert(counts, answers.WorkItem)


def _answer(body: msgspec.Struct) -> web.Response:
    return web.json_response(body=wire.to_json(body), headers=_NOT_STORED)
