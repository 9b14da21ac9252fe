"""The fake Evolution words everything as a real 2.3.7 was recorded to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes import evolution_channels as channels
from tests.fakes.evolution import INSTANCE, PERSON, FakeEvolution
from tests.fakes.evolution_channels import Channel
from tests.fakes.evolution_webhooks import Webhook

_FOLDER = Path(__file__).parents[1] / "data" / "evolution_recorded"
_CHANNELS: dict[str, Channel] = {
    "loja": "evolution",
    "waba": "meta",
    "bai": "baileys",
}
_KINDS = {"conversation": "text", "contactMessage": "contacts"}
GROUP = "120363000000000001@g.us"
LID = "123456789@lid"


def recorded() -> dict[str, dict[str, Any]]:
    files = sorted(_FOLDER.glob("*_[0-9].json"))
    bodies = {file.stem: json.loads(file.read_text())["body"] for file in files}
    assert len(bodies) == 34
    mixed = json.loads((_FOLDER / "mixed_up.json").read_text())["bodies"]
    return bodies | {f"mixed_up_{i}": body for i, body in enumerate(mixed)}


RECORDED = recorded()


def shape(value: Any) -> Any:
    """Give the keys and types of a body, all numbers being of one type."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value).__name__
    return "number"


async def made_by_fake(body: dict[str, Any]) -> dict[str, Any]:
    """Give the body that the fake makes of the same occasion."""
    channel = _CHANNELS[body["instance"]]
    async with FakeEvolution(channel=channel) as evolution:
        evolution.webhooks.root = channels.envelope(channel, is_paired=False)
        evolution.webhooks.webhooks.append(Webhook(f"{evolution.url}/hook"))
        await _OCCASIONS[body["event"]](evolution, body)
        await evolution.settled()
        [made] = [d.body for d in evolution.deliveries if d.event == body["event"]]
        return made


async def _receive(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    row = body["data"]
    kind = _KINDS.get(row["messageType"], row["messageType"].removesuffix("Message"))
    written = dict(row["message"])
    context = written.pop("contextInfo", None)
    inner = written.get(row["messageType"])
    if isinstance(inner, dict):
        made = channels.content(evolution.channel, kind, inner)
    else:
        made = {"conversation": "oi"} if written else {}
    if context:
        made["contextInfo"] = {"stanzaId": "wamid.OUT1"}
    if "base64" in written:
        made["base64"] = "aGVsbG8="
    evolution.receive("oi", message=made, kind=kind)


async def _send(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    status, answer = await post(evolution, "message/sendText", PERSON, text="oi")
    assert status == 201
    # The answer is the event's data.
    assert shape(answer) == shape(body["data"])


async def _acknowledge(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    await post(evolution, "message/sendText", PERSON, text="oi")
    evolution.acknowledge(evolution.sent[0], "SENT")


async def _connect(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    evolution.connect("connecting")


async def _delete(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    evolution.delete_instance()


async def _introduce(evolution: FakeEvolution, body: dict[str, Any]) -> None:
    evolution.introduce()


_OCCASIONS = {
    "messages.upsert": _receive,
    "send.message": _send,
    "messages.update": _acknowledge,
    "connection.update": _connect,
    "instance.delete": _delete,
    "remove.instance": _delete,
    "contacts.upsert": _introduce,
    "chats.upsert": _introduce,
    "chats.update": _introduce,
}


@pytest.fixture
async def evolution() -> AsyncIterator[FakeEvolution]:
    async with FakeEvolution() as running:
        yield running


async def post(
    evolution: FakeEvolution, route: str, jid: str, **body: Any
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers={"apikey": evolution.api_key}) as session,
        session.post(
            f"{evolution.url}/{route}/{INSTANCE}", json={"number": jid, **body}
        ) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize("name", RECORDED)
async def test_an_event_has_the_recorded_keys_and_types(name: str) -> None:
    body = RECORDED[name]
    assert shape(await made_by_fake(body)) == shape(body)


@pytest.mark.parametrize(
    ("jid", "status", "message"),
    [
        (PERSON, 500, "Connection Closed"),
        ("5511900000001@s.whatsapp.net", 400, ["Error: Connection Closed"]),
        (LID, 400, ["Error: Connection Closed"]),
        (GROUP, 400, ["[object Object]"]),
    ],
)
async def test_a_send_while_the_socket_is_away_is_refused_as_recorded(
    jid: str, status: int, message: object, evolution: FakeEvolution
) -> None:
    evolution.cached = {"5511900000001@s.whatsapp.net"}
    evolution.connect("connecting")

    answered, body = await post(evolution, "message/sendText", jid, text="oi")

    assert (answered, body["response"]["message"]) == (status, message)
    assert evolution.sent == []


async def test_an_instance_that_never_logged_in_refuses_with_a_type_error(
    evolution: FakeEvolution,
) -> None:
    evolution.unpaired = {INSTANCE}

    status, body = await post(evolution, "message/sendText", PERSON, text="oi")

    [text] = body["response"]["message"]
    assert (status, text[-14:]) == (400, "(reading 'id')")


@pytest.mark.parametrize("channel", ["evolution", "meta"])
async def test_only_baileys_shows_typing_and_loses_its_connection(
    channel: Channel,
) -> None:
    async with FakeEvolution(channel=channel) as evolution:
        evolution.connect("close")
        typing = await post(
            evolution, "chat/sendPresence", PERSON, presence="composing", delay=1
        )
        status, _ = await post(evolution, "message/sendText", PERSON, text="oi")

    assert typing[0] == 400
    assert typing[1]["response"]["message"][0].startswith("Method not available on")
    assert status == 201


async def test_media_of_metas_channel_is_not_in_its_store() -> None:
    async with FakeEvolution(channel="meta") as evolution:
        evolution.receive("oi", kind="image", message=channels.content("meta", "image"))
        evolution.receive("oi")
        _, body = await post(evolution, "chat/findMessages", PERSON)

    assert [row["messageType"] for row in body["messages"]["records"]] == [
        "conversation"
    ]
