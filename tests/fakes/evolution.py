"""A fake Evolution API on a real socket: 1.x, 2.x or evolution-go, with faults.

`async with FakeEvolution() as evolution:` then `.url`, `.api_key`; `.script("503",
"drop after effect")` says how the next sends go wrong; `.sent` is what WhatsApp got.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from aiohttp import web

from tests.fakes import evolution_channels as channels
from tests.fakes.evolution_channels import Channel
from tests.fakes.evolution_faults import FAULTS, Fault, fail, problem
from tests.fakes.evolution_webhooks import (
    Delivered,
    Law,
    Webhook,
    WebhookSender,
)

INSTANCE = "loja"
PERSON = "5511988887777@s.whatsapp.net"

Generation = Literal["1", "2", "go"]
Handler = Callable[[str, web.Request, Any], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that WhatsApp got; `at` is the monotonic clock's."""

    instance: str
    jid: str
    text: str
    at: float
    message_id: str


class FakeEvolution:
    """One Evolution API with any instance that is asked for, unless `only` names them.

    `scale` shortens the waits between attempts of its webhooks: 0.001 makes 5 s 5 ms.
    """

    def __init__(
        self,
        generation: Generation = "2",
        *,
        law: Law = "2.3",
        scale: float = 0.001,
        only: Iterable[str] | None = None,
        channel: Channel = "baileys",
    ) -> None:
        self.generation: Generation = generation
        self.channel: Channel = channel
        self.states: dict[str, str] = {}
        """How each instance's connection is: open, connecting or close."""
        self.cached: set[str] = set()
        """The phones whose number check needs no WhatsApp."""
        self.unpaired: set[str] = set()
        """The instances that never logged in."""
        self.api_key = "evolution-test-key"
        self.only = None if only is None else set(only)
        self.echoes_upserts = False
        """Also deliver what was sent as messages.upsert with fromMe, as forks do."""
        self.sent: list[Sent] = []
        self.typing: list[tuple[str, str, float]] = []
        self.requests: list[tuple[str, str, Any]] = []
        """Method, path and body of each request, refused ones among them."""
        self.stored: dict[str, list[dict[str, Any]]] = {}
        self.settings: dict[str, dict[str, Any] | None] = {}
        """The answer to webhook/find, by instance."""
        self.answers: dict[str, bytes] = {}
        """Bodies that stand in for the true ones, by route such as webhook/find."""
        self.filters_by_time = True
        """False: 2.0 and 2.1, which ignore a condition on messageTimestamp."""
        self.webhooks = WebhookSender(law, scale)
        self.webhooks.root = channels.envelope(channel)
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.webhooks.close()
        await self.stop()

    async def start(self) -> None:
        """Listen, after a stop on the same port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections; what was sent and stored stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def deliveries(self) -> list[Delivered]:
        """What became of the webhooks."""
        return self.webhooks.deliveries

    async def settled(self) -> None:
        """Wait until no webhook is being delivered any more."""
        await self.webhooks.settled()

    def script(self, *faults: str | Fault) -> None:
        """Make the next sends go wrong, one after the other."""
        self._faults += [FAULTS[f] if isinstance(f, str) else f for f in faults]

    def add_webhook(
        self, url: str, instance: str | None = None, **options: Any
    ) -> None:
        """Configure a webhook (`headers`, `by_events`, `events`); global by default."""
        self.webhooks.webhooks.append(Webhook(url, instance, **options))

    def receive(
        self,
        text: str,
        *,
        jid: str = PERSON,
        instance: str = INSTANCE,
        from_me: bool = False,
        at: float | None = None,
        delivers: bool = True,
        message: Mapping[str, Any] | None = None,
        kind: str = "text",
    ) -> str:
        """Let a person write, or with `from_me` the owner from the phone.

        It is stored, and delivered as messages.upsert unless `delivers` is false (the
        webhook was lost). `at` is epoch seconds. Returns the message's id.
        """
        row = self._row(jid, text, from_me=from_me, at=at)
        row["message"] = dict(row["message"] if message is None else message)
        row["messageType"] = channels.message_type(kind)
        # Without S3 the media of Meta's channel is not in its store.
        if not (self.channel == "meta" and kind in channels.MEDIA):
            self.stored.setdefault(instance, []).append(row)
        if delivers:
            told = channels.received_row(self.channel, row)
            self.webhooks.emit("messages.upsert", instance, told)
        return str(row["key"]["id"])

    def acknowledge(self, sent: Sent, status: str) -> None:
        """Deliver a receipt, such as DELIVERY_ACK, READ, ERROR or FAILED."""
        data = channels.receipt(
            self.channel, sent.message_id, sent.jid, status, f"cm{next(self._ids)}"
        )
        self.webhooks.emit("messages.update", sent.instance, data)

    def connect(self, state: str = "open", instance: str = INSTANCE) -> None:
        """Bring an instance's connection to a state, and deliver that."""
        self.states[instance] = state
        data = {"instance": instance, "state": state, "statusReason": 200}
        self.webhooks.emit("connection.update", instance, data)

    def delete_instance(self, instance: str = INSTANCE) -> None:
        """Deliver what Evolution does of an instance that is deleted."""
        data = {"instanceName": instance, "instanceId": channels.INSTANCE_ID}
        self.webhooks.emit("instance.delete", instance, data)
        self.webhooks.emit("remove.instance", instance, None)

    def introduce(self, jid: str = PERSON, name: str = "Ana") -> None:
        """Deliver what its own channel and Meta's do beside a new chat's message."""
        contact = channels.contact(self.channel, jid, name)
        self.webhooks.emit("contacts.upsert", INSTANCE, contact)
        if self.channel == "evolution":
            chat = {"remoteJid": jid, "instanceId": channels.INSTANCE_ID}
            for event in ("chats.upsert", "chats.update"):
                self.webhooks.emit(event, INSTANCE, chat)

    def _row(
        self, jid: str, text: str, *, from_me: bool, at: float | None = None
    ) -> dict[str, Any]:
        number = next(self._ids)
        message_id = channels.message_id(self.channel, number, jid)
        return {
            "id": f"cm{number}",
            "key": {"remoteJid": jid, "fromMe": from_me, "id": message_id},
            "pushName": "Você" if from_me else "Ana",
            "message": {"conversation": text},
            "messageType": "conversation",
            "messageTimestamp": int(time.time() if at is None else at),
            "instanceId": channels.INSTANCE_ID,
            "source": "android",
        }

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, request.path, body))
        if request.headers.get("apikey") != self.api_key:
            return problem(401, "Unauthorized")
        words = request.path.strip("/").split("/", 2)
        if raw_answer := self.answers.get("/".join(words[:2])):
            return web.Response(body=raw_answer, content_type="application/json")
        name, handler = self._route(request.method, words)
        if handler is None:
            return self._nothing_here(request)
        if name is not None and self.only is not None and name not in self.only:
            return problem(404, [f'The "{name}" instance does not exist'])
        return await handler(name or INSTANCE, request, body)

    def _route(
        self, method: str, words: list[str]
    ) -> tuple[str | None, Handler | None]:
        if self.generation == "go":
            routes = {
                "POST send/text": self._send,
                "POST message/presence": self._show_typing,
                "GET server/ok": self._tell_ok,
            }
            return None, routes.get(f"{method} {'/'.join(words)}")
        if [method, *words] == ["GET", "instance", "fetchInstances"]:
            return None, self._list_instances
        routes = {
            "POST message/sendText": self._send,
            "POST chat/sendPresence": self._show_typing,
            "POST chat/findMessages": self._find_messages,
            "GET instance/connectionState": self._tell_state,
            "GET webhook/find": self._find_webhook,
        }
        route = " ".join([method, "/".join(words[:2])])
        return (words[2], routes.get(route)) if len(words) == 3 else (None, None)

    def _nothing_here(self, request: web.Request) -> web.Response:
        if self.generation == "go":
            return web.Response(status=404, text="404 page not found")
        return problem(404, [f"Cannot {request.method} {request.path}"])

    async def _send(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        needs = "textMessage" if self.generation == "1" else "text"
        if needs not in body:
            return problem(400, [[f'instance requires property "{needs}"']])
        content = body["textMessage"] if self.generation == "1" else body
        fault = self._next_fault()
        if fault is None and self._state(instance) != "open":
            fault = self._closed(instance, body["number"])
        if fault is not None and not fault.effect:
            return await fail(request, fault)
        row = self._put_sent(instance, body["number"], content["text"])
        if fault is not None:
            return await fail(request, fault)
        if self.generation == "go":
            info = {"Info": {"ID": row["key"]["id"], "Chat": body["number"]}}
            return web.json_response({"message": "success", "data": info})
        return web.json_response(channels.sent_row(self.channel, row), status=201)

    def _state(self, instance: str) -> str:
        """Return how the connection is; only Baileys has one that can go away."""
        if self.channel != "baileys":
            return "open"
        default = "connecting" if instance in self.unpaired else "open"
        return self.states.get(instance, default)

    def _closed(self, instance: str, jid: str) -> Fault:
        status, message = channels.closed_answer(
            jid,
            is_cached=jid in self.cached,
            was_paired=instance not in self.unpaired,
        )
        return Fault(status, message)

    def _next_fault(self) -> Fault | None:
        return self._faults.pop(0) if self._faults else None

    def _put_sent(self, instance: str, jid: str, text: str) -> dict[str, Any]:
        row = self._row(jid, text, from_me=True)
        message_id = row["key"]["id"]
        self.sent.append(Sent(instance, jid, text, time.monotonic(), message_id))
        self.stored.setdefault(instance, []).append(row)
        told = channels.sent_row(self.channel, row)
        self.webhooks.emit("send.message", instance, told)
        if self.echoes_upserts:
            self.webhooks.emit("messages.upsert", instance, row)
        return row

    async def _show_typing(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        if self.generation == "go":
            self.typing.append((instance, body["number"], 0.0))
            return web.json_response({"message": "success"})
        if self.generation == "1" and "options" not in body:
            return problem(400, [['instance requires property "options"']])
        if self.generation == "2" and "presence" not in body:
            return problem(400, [['instance requires property "presence"']])
        if refusal := channels.NO_METHOD.get(self.channel):
            return problem(400, [refusal])
        state = body["options"] if self.generation == "1" else body
        seconds = state["delay"] / 1000
        self.typing.append((instance, body["number"], seconds))
        await asyncio.sleep(seconds)
        return web.json_response({"presence": state["presence"]}, status=201)

    async def _find_messages(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        rows = list(reversed(self.stored.get(instance, [])))
        rows.sort(key=lambda row: -row["messageTimestamp"])
        where = body.get("where", {})
        if self.generation == "1":
            # A condition that its schema does not know fails within the database.
            found = [] if "messageTimestamp" in where else rows[: body.get("limit")]
            return web.json_response(found)
        if self.filters_by_time:
            rows = _within(rows, where.get("messageTimestamp") or {})
        size, page = body.get("offset") or 50, body.get("page") or 1
        records = {
            "total": len(rows),
            "pages": -(-len(rows) // size),
            "currentPage": page,
            "records": rows[size * (page - 1) : size * page],
        }
        return web.json_response({"messages": records})

    async def _find_webhook(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        return web.json_response(self.settings.get(instance))

    async def _tell_ok(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _tell_state(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        state = {"instanceName": instance, "state": self._state(instance)}
        return web.json_response({"instance": state})

    async def _list_instances(
        self, instance: str, request: web.Request, body: Any
    ) -> web.StreamResponse:
        names = sorted(self.only or self.stored)
        if self.generation == "1":
            return web.json_response([{"instance": {"instanceName": n}} for n in names])
        rows = [
            {
                "name": name,
                "token": self.api_key,
                "connectionStatus": self._state(name),
                "integration": channels.INTEGRATIONS[self.channel],
            }
            for name in names
        ]
        return web.json_response(rows)


def _within(rows: list[dict[str, Any]], span: Mapping[str, str]) -> list[Any]:
    if not (span.get("gte") and span.get("lte")):
        return rows
    first, last = (
        datetime.fromisoformat(span[name]).timestamp() for name in ("gte", "lte")
    )
    return [row for row in rows if first <= row["messageTimestamp"] <= last]
