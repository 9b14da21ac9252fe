"""Two deliveries of one event have one key, two events have two."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.whatsapp.samples import NOW, SAMPLES
from viva_server.whatsapp.ingress.delivery import make_delivery

TEXT = SAMPLES["v2_2_messages_upsert_conversation"]["body"]
READ = SAMPLES["v2_2_messages_update_read"]["body"]
CHANGED = SAMPLES["v2_4_messages_update_with_message"]["body"]
EDITED = SAMPLES["v2_messages_edited"]["body"]
OPEN = SAMPLES["v2_connection_update_open"]["body"]
BATCH = SAMPLES["fork_messages_upsert_buffered_array"]["body"]
QR = {"event": "qrcode.updated", "data": {"qrcode": {"code": "2@first"}}}


def key(body: dict[str, Any], tail: str = "") -> str:
    return make_delivery(tail, "", {}, body, trusted=True, now=NOW).dedupe_key


def changed(body: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    body = copy.deepcopy(body)
    inner: Any = body
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value
    return body


@pytest.mark.parametrize("name", SAMPLES)
def test_a_retry_has_the_key_of_the_first_attempt(name: str) -> None:
    body = SAMPLES[name]["body"]
    reordered = dict(reversed(copy.deepcopy(body).items()))
    assert key(body) == key(reordered)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "field",
    ["apikey", "date_time", "destination", "server_url"],
)
def test_the_instances_and_the_global_webhook_give_one_key(
    name: str, field: str
) -> None:
    body = SAMPLES[name]["body"]
    assert key(body) == key({**body, field: "another"})


@pytest.mark.parametrize(
    ("body", "path", "value"),
    [
        (TEXT, "data.pushName", "Outra"),
        (TEXT, "data.message.conversation", "changed"),
        (TEXT, "data.key.remoteJid", "103899771998284@lid"),
        (READ, "data.messageId", "another"),
        (EDITED, "data.editedMessage", {"conversation": "x"}),
        (EDITED, "data.timestampMs", {"low": 115970152, "high": 410, "unsigned": True}),
    ],
)
def test_what_is_not_in_the_key_does_not_change_it(
    body: dict[str, Any], path: str, value: object
) -> None:
    if path == "data.timestampMs":
        number = 410 * 2**32 + 115970152
        body = changed(body, path, str(number))
    assert key(changed(body, path, value)) == key(body)


@pytest.mark.parametrize(
    ("body", "path", "value"),
    [
        (TEXT, "instance", "another"),
        (TEXT, "event", "send.message"),
        (TEXT, "data.key.id", "another"),
        (READ, "data.status", "DELIVERY_ACK"),
        (READ, "data.keyId", "another"),
        (READ, "data.pollUpdates", [{"name": "9h", "voters": ["1"]}]),
        (CHANGED, "data.message.editedMessage", {"message": {"conversation": "2"}}),
        (EDITED, "data.timestampMs", "1761048602000"),
        (EDITED, "data.key.id", "another"),
        (OPEN, "data.state", "close"),
        (OPEN, "instance", "another"),
        (BATCH, "data.1.key.id", "another"),
        (QR, "data.qrcode.code", "2@second"),
    ],
)
def test_what_tells_two_events_apart_changes_the_key(
    body: dict[str, Any], path: str, value: object
) -> None:
    assert key(changed(body, path, value)) != key(body)


def test_a_message_that_could_not_be_read_does_not_hide_its_text() -> None:
    empty = changed(TEXT, "data.message", {})
    assert key(empty) != key(TEXT)
    assert key(empty) == key(changed(empty, "data.pushName", "Outra"))


def test_the_path_gives_the_key_that_the_body_gives() -> None:
    without = {name: value for name, value in TEXT.items() if name != "event"}
    assert key(without, "/messages-upsert") == key(TEXT)


def test_without_an_id_the_body_is_the_key() -> None:
    dummy: dict[str, Any] = {"data": {"key": "dummy"}}
    assert key(dummy, "/messages-upsert") == key(dummy, "//messages-upsert/")
    other = {"data": {"key": "dummy2"}}
    assert key(dummy, "/messages-upsert") != key(other, "/messages-upsert")
