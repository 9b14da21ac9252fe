"""Who is answered on WhatsApp, with what, and when a cut turn runs again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from viva_server.config import Config
from viva_server.whatsapp import rules
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.rules import Rules

NOW = 1_761_048_603.0
JID = "5511988887777@s.whatsapp.net"


def form(**changes: Any) -> NormalForm:
    """Make the form of a text of a person, with changes; None takes a key out."""
    members = {
        "event": "messages.upsert", "kind": "text", "answer": True, "chat": JID,
        "sender": JID, "phone": "5511988887777", "from_me": False, "group": False,
        "message_id": "3A9F", "text": "oi", "timestamp": int(NOW), **changes,
    }  # fmt: skip
    kept = {name: value for name, value in members.items() if value is not None}
    return cast("NormalForm", kept)


_GROUP = {"chat": "120363000000000000@g.us", "group": True}


@pytest.mark.parametrize(
    ("changes", "why_not"),
    [
        ({}, None),
        ({"timestamp": None}, None),
        ({"chat": "123456789012345@lid", "sender": "123456789012345@lid"}, None),
        ({"kind": "audio", "text": None}, None),
        ({"kind": "location", "text": None}, None),
        ({"from_me": True}, "own"),
        (_GROUP, "group"),
        ({"chat": "status@broadcast", "status": True}, "status"),
        ({"chat": "1@newsletter"}, "newsletter"),
        ({"chat": "1@broadcast"}, "broadcast"),
        ({"self_chat": True}, "self_chat"),
        ({"chat": "0@s.whatsapp.net"}, "nobody"),
        ({"kind": "sticker"}, "sticker"),
        ({"kind": "reaction"}, "reaction"),
        ({"kind": "poll"}, "poll"),
        ({"timestamp": int(NOW) - 3601}, "old"),
        ({"timestamp": int(NOW) - 3600}, None),
        ({"reply_in_response": "message"}, "bot_request"),
    ],
)
def test_only_a_fresh_message_of_a_person_is_answered(
    changes: dict[str, Any], why_not: str | None
) -> None:
    assert Rules().why_not(form(**changes), NOW) == why_not


def test_groups_are_answered_where_that_is_set() -> None:
    assert Rules(groups=True).why_not(form(**_GROUP), NOW) is None


@pytest.mark.parametrize(
    "ignored",
    ["+55 (11) 98888-7777", "5511988887777", JID, "99@lid", _GROUP["chat"]],
)
def test_who_is_on_the_list_is_ignored_however_it_is_written(ignored: str) -> None:
    judge = Rules.of(Config(whatsapp_ignore=(ignored,), whatsapp_groups=True))
    told = form(lid="99@lid", **(_GROUP if "@g.us" in ignored else {}))
    assert judge.why_not(told, NOW) == "ignored"
    other = form(chat="5511900000001@s.whatsapp.net", sender=None)
    assert judge.why_not(other, NOW) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "oi"),
        ({"kind": "image", "text": "veja"}, "veja"),
        ({"kind": "image", "text": None}, None),
        ({"text": "  \n"}, None),
        (
            {"kind": "location", "text": "Sé", "lat": -23.55, "lon": -46.6333},
            "[localização] Sé – -23.55000, -46.63330",
        ),
        ({"kind": "location", "text": None}, "[localização]"),
        ({"kind": "contact", "text": "João"}, "[contato] João"),
        ({"kind": "list", "text": None, "choice_id": "row-2"}, "row-2"),
        ({**_GROUP, "push_name": "Ana"}, "Ana: oi"),
    ],
)
def test_what_the_model_sees_of_a_message(
    changes: dict[str, Any], text: str | None
) -> None:
    assert rules.text_for_model(form(**changes)) == text


def test_a_burst_is_joined_and_media_between_texts_are_noted() -> None:
    burst = [("text", "oi"), ("audio", None), ("text", "tudo bem?")]
    assert rules.join_messages(burst) == "oi\n[áudio]\ntudo bem?"


def test_media_alone_have_no_text() -> None:
    assert rules.join_messages([("audio", None), ("image", None)]) is None


@pytest.mark.parametrize(
    ("runs", "reason", "is_final", "seconds"),
    [
        (0, "upstream_error", False, 1.0),
        (1, "crashed", False, 0.0),
        (1, "shutdown", False, 0.0),
        (1, None, False, 0.0),
        (1, "upstream_error", False, 1.0),
        (3, "upstream_error", False, 20.0),
        (4, "upstream_error", False, None),
        (4, "crashed", False, None),
        (1, "upstream_error", True, None),
        (1, "limit", False, None),
    ],
)
def test_a_cut_turn_runs_again_three_times_at_most(
    runs: int, reason: Any, is_final: bool, seconds: float | None
) -> None:
    assert rules.rerun_seconds(runs, reason, is_final=is_final) == seconds


def test_a_send_waits_longer_each_time_and_as_long_as_it_is_told() -> None:
    assert [rules.retry_seconds(n, None) for n in (0, 1, 2, 9, 9999)] == [
        1.0, 2.0, 4.0, 60.0, 60.0,
    ]  # fmt: skip
    assert rules.retry_seconds(0, 7.0) == 7.0
    assert rules.retry_seconds(5, 7.0) == 32.0


@pytest.mark.parametrize(
    ("own_at", "is_greeting"),
    [(99, False), (100, False), (101, True), (103, True), (104, False)],
)
def test_a_greeting_comes_within_three_seconds_of_a_message(
    own_at: float, is_greeting: bool
) -> None:
    assert rules.was_greeting(own_at, 100) is is_greeting


def test_receipts_of_all_versions_have_one_order() -> None:
    orders = [
        ["PENDING", "SERVER_ACK", "ERROR", "DELIVERY_ACK", "READ", "PLAYED"],
        ["1", "2", "0", "3", "4", "5"],
        ["SENT", "FAILED", "DELIVERED", "READ"],
    ]
    for order in orders:
        ranks = [rules.receipt_rank(status) for status in order]
        assert ranks == sorted(set(ranks))
        assert all(ranks)
    assert rules.receipt_rank("DELETED") == rules.receipt_rank(None) == 0


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({"from_me": True}, True),
        ({"from_me": True, "event": "send.message"}, True),
        ({"from_me": True, "self_chat": True}, False),
        ({"from_me": True, **_GROUP}, False),
    ],
)
def test_a_person_takes_over_in_a_private_chat(
    changes: dict[str, Any], may: bool
) -> None:
    assert rules.may_hand_over(form(**changes)) is may


def test_a_row_is_made_of_what_a_person_wrote_and_of_nothing_else() -> None:
    assert rules.is_kept(form())
    assert rules.is_kept(form(kind="reaction"))
    for changes in ({"kind": "edit"}, {"kind": "empty"}, {"message_id": None}):
        assert not rules.is_kept(form(**changes))
    own = form(from_me=True)
    assert rules.is_own(own)
    assert not rules.is_kept(own)
    assert not rules.is_own(form(from_me=True, kind="reaction"))


def test_a_person_is_named_by_phone_and_else_by_lid() -> None:
    assert rules.person_of("loja", JID) == "loja/5511988887777"
    assert rules.person_of("loja", "99@lid") == "loja/99@lid"
