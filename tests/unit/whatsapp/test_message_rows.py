"""What of a delivery is work: each message once, with its chat's names and its time."""

from __future__ import annotations

from typing import Any

import pytest

from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.inbox import is_pending, message_rows
from viva_server.whatsapp.rules import Rules

NOW = 1_761_048_603.0
JID = "5511988887777@s.whatsapp.net"
LID = "123456789012345@lid"


def delivery(
    *rows: dict[str, Any],
    event: str = "messages.upsert",
    trusted: bool = True,
    instance: str = "loja",
) -> Delivery:
    data = rows[0] if len(rows) == 1 else list(rows)
    body = {"event": event, "instance": instance, "data": data}
    return make_delivery("", "", {}, body, trusted=trusted, now=NOW)


def text(message_id: str = "3A9F", at: float = NOW, **key: Any) -> dict[str, Any]:
    return {
        "key": {"remoteJid": JID, "fromMe": False, "id": message_id, **key},
        "message": {"conversation": "oi"},
        "messageTimestamp": int(at),
    }


def test_a_message_becomes_a_row() -> None:
    [row] = message_rows(delivery(text()), Rules(), NOW)
    assert row == ("3A9F", JID, None, "text", "oi", NOW, None)


def test_a_lid_beside_the_phone_is_told() -> None:
    [row] = message_rows(delivery(text(remoteJid=LID, remoteJidAlt=JID)), Rules(), NOW)
    assert (row.jid, row.lid) == (JID, LID)


def test_a_lid_alone_is_the_chat() -> None:
    [row] = message_rows(delivery(text(remoteJid=LID)), Rules(), NOW)
    assert (row.jid, row.lid) == (LID, None)


def test_a_batch_is_a_row_for_each_message() -> None:
    batch = delivery(text("A"), text("B"), text("C", fromMe=True))
    assert [r.message_id for r in message_rows(batch, Rules(), NOW)] == ["A", "B"]
    assert is_pending(batch)


def test_nobody_vouches_for_an_untrusted_delivery() -> None:
    assert message_rows(delivery(text(), trusted=False), Rules(), NOW) == []
    own = delivery(text(fromMe=True), trusted=False)
    assert not is_pending(own)


def test_what_is_not_answered_is_kept_without_its_text() -> None:
    [row] = message_rows(delivery(text(at=NOW - 4000)), Rules(), NOW)
    assert (row.text, row.why_not) == (None, "old")


def test_without_an_instance_nothing_can_be_sent() -> None:
    [row] = message_rows(delivery(text(), instance=""), Rules(), NOW)
    assert row.why_not == "no_instance"


@pytest.mark.parametrize("at", [0, -5, NOW + 601, 9e18])
def test_a_time_that_no_clock_could_show_is_none(at: float) -> None:
    judge = Rules(max_age_seconds=1e19)
    [row] = message_rows(delivery(text(at=at)), judge, NOW)
    assert row.sent_at is None


@pytest.mark.parametrize(
    ("event", "row", "pending"),
    [
        ("messages.upsert", text(), False),
        ("messages.upsert", text(fromMe=True), True),
        ("send.message", text(), True),
        ("messages.update", {"keyId": "A", "remoteJid": JID, "status": "READ"}, True),
        ("messages.delete", {"id": "A", "remoteJid": JID, "fromMe": False}, True),
        ("presence.update", {"id": JID}, False),
    ],
)
def test_receipts_changes_and_own_messages_are_applied_later(
    event: str, row: dict[str, Any], pending: bool
) -> None:
    assert is_pending(delivery(row, event=event)) is pending
