"""The doctor names each fault of a webhook's settings, and what sets it right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from viva_server.config import Config
from viva_server.whatsapp.evolution.doctor import default_url, diagnose

SECRET = "a-webhook-secret"
CONFIG = Config(
    webhook_secret=("older-secret", SECRET),
    evolution_url=URL("http://evolution:8080"),
    evolution_api_key="key",
)
GOOD: dict[str, Any] = {
    "id": "cm1",
    "url": "https://viva.example/api/v1/webhook/evolution",
    "enabled": True,
    "headers": {"authorization": f"Bearer {SECRET}"},
    "events": [
        "MESSAGES_UPSERT",
        "SEND_MESSAGE",
        "MESSAGES_UPDATE",
        "CONNECTION_UPDATE",
    ],
    "webhookByEvents": False,
    "webhookBase64": False,
}
GOOD_1: dict[str, Any] = {
    "enabled": True,
    "url": f"https://viva:{SECRET}@viva.example/api/v1/webhook/evolution",
    "events": GOOD["events"],
    "webhook_by_events": True,
    "webhook_base64": False,
}


def faults(answer: Mapping[str, Any], config: Config = CONFIG) -> list[tuple[str, str]]:
    """Return ("FAIL" or "warn", detail) of each line that is not fine."""
    checks, _ = diagnose("loja", answer, config)
    return [
        ("warn" if check.ok else "FAIL", check.detail)
        for check in checks
        if check.warn or not check.ok
    ]


@pytest.mark.parametrize("good", [GOOD, GOOD_1, {"webhook": GOOD}])
def test_good_settings_are_one_good_line(good: dict[str, Any]) -> None:
    checks, _ = diagnose("loja", good, CONFIG)

    assert [(check.name, check.ok, check.warn) for check in checks] == [
        ("webhook loja", True, False)
    ]
    assert "as it should be" in checks[0].detail


@pytest.mark.parametrize("by_events", [True, False])
def test_by_events_is_fine_either_way(by_events: bool) -> None:
    assert faults({**GOOD, "webhookByEvents": by_events}) == []


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({"enabled": False}, "FAIL", "disabled"),
        ({"url": "viva.example/webhook/evolution"}, "FAIL", "no http"),
        ({"url": GOOD["url"] + "/"}, "warn", "slash"),
        ({"url": GOOD["url"] + "?token=" + SECRET}, "warn", "query"),
        ({"url": "http://localhost:8080/webhook/evolution"}, "FAIL", "own machine"),
        ({"url": "http://127.0.0.1/webhook/evolution"}, "FAIL", "own machine"),
        (
            {
                "url": f"https://u:{SECRET}@h/webhook/evolution",
                "headers": {"Authorization": "x"},
            },
            "FAIL",
            "drop the Authorization",
        ),
        ({"events": ["messages.upsert"]}, "FAIL", "written like"),
        ({"events": ["SEND_MESSAGE"]}, "FAIL", "no message arrives"),
        ({"events": ["MESSAGES_UPSERT"]}, "FAIL", "never settled"),
        ({"events": []}, "FAIL", "MESSAGES_UPSERT and SEND_MESSAGE"),
        ({"events": GOOD["events"][:2]}, "warn", "MESSAGES_UPDATE and CONNECTION"),
        ({"events": [*GOOD["events"], "GROUPS_UPDATE"]}, "warn", "never sends GROUPS"),
        ({"events": [*GOOD["events"], "MESSAGE_UPSERT"]}, "warn", "no event MESSAGE_U"),
        ({"webhookBase64": True}, "warn", "after the instance reconnects"),
        ({"headers": None}, "FAIL", "sends no secret"),
        ({"headers": {}}, "FAIL", "sends no secret"),
        ({"headers": {"apikey": "other"}}, "FAIL", "none of VIVA_WEBHOOK_SECRET"),
        ({"headers": {"jwt_key": "other"}}, "FAIL", "none of VIVA_WEBHOOK_SECRET"),
    ],
)
def test_a_fault_is_named(change: dict[str, Any], level: str, word: str) -> None:
    found = faults({**GOOD, **change})

    assert any(how == level and word in detail for how, detail in found), found


@pytest.mark.parametrize(
    "way",
    [
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": {"apikey": "older-secret"}},
        {"headers": {"jwt_key": SECRET}},
        {"headers": {}, "url": f"https://u:{SECRET}@viva.example/webhook/evolution"},
        {
            "headers": {},
            "url": f"https://viva.example/webhook/evolution?token={SECRET}",
        },
    ],
)
def test_each_way_to_send_the_secret_is_known(way: dict[str, Any]) -> None:
    assert not [detail for _, detail in faults({**GOOD, **way}) if "401" in detail]


def test_the_bodys_apikey_may_be_the_secret_and_nobody_can_tell() -> None:
    config = Config(
        webhook_secret=("key-as-secret",),
        evolution_url=URL("http://evolution:8080"),
        evolution_api_key="key-as-secret",
    )

    ((level, detail),) = faults({**GOOD, "headers": {}}, config)

    assert (level, "the body's apikey" in detail) == ("warn", True)


def test_evolution_on_this_machine_may_use_localhost() -> None:
    config = Config(
        webhook_secret=(SECRET,),
        evolution_url=URL("http://localhost:8081"),
        evolution_api_key="key",
    )

    assert (
        faults({**GOOD, "url": "http://127.0.0.1:8080/webhook/evolution"}, config) == []
    )


def test_the_repair_nests_the_body_and_sends_a_header_where_that_is_known() -> None:
    answer = {**GOOD, "url": f"https://u:x@viva.example/p{'/webhook/evolution'}/?t=1"}

    _, repair = diagnose("loja 1/2", answer, CONFIG)

    assert (repair.method, repair.path) == ("POST", "/webhook/set/loja%201%2F2")
    assert repair.body == {
        "webhook": {
            "enabled": True,
            "url": "https://viva.example/p/webhook/evolution",
            "headers": {"Authorization": "Bearer $VIVA_WEBHOOK_SECRET"},
            "byEvents": False,
            "base64": False,
            "events": GOOD["events"],
        }
    }


def test_the_repair_of_1_is_flat_and_has_the_secret_in_the_url() -> None:
    _, repair = diagnose("loja", GOOD_1, CONFIG)

    url = "https://viva:$VIVA_WEBHOOK_SECRET@viva.example/api/v1/webhook/evolution"
    assert repair.body == {
        "enabled": True,
        "url": url,
        "events": GOOD["events"],
        "webhook_by_events": False,
        "webhook_base64": False,
    }


def test_the_repair_of_2_0_is_flat_with_its_own_names() -> None:
    answer = {name: value for name, value in GOOD.items() if name != "headers"}

    _, repair = diagnose("loja", answer, CONFIG)

    assert {"webhookByEvents", "webhookBase64"} < set(repair.body)


def test_a_webhook_that_leads_elsewhere_is_repaired_to_this_server() -> None:
    _, repair = diagnose("loja", {"url": "https://n8n.example/x"}, CONFIG)

    assert "127.0.0.1:8080/api/v1/webhook/evolution" in json.dumps(repair.body)
    assert str(default_url(CONFIG)) == "http://127.0.0.1:8080/api/v1/webhook/evolution"


BAD_URLS = ["http://[", "http://x:99999/webhook/evolution", "//webhook/evolution"]
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, -1.5, "x", [], [None, "x", {}], {}, {"apikey": []}, *BAD_URLS]
)


@given(st.dictionaries(st.sampled_from([*GOOD, *GOOD_1, "webhook"]), ODD))
def test_no_answer_makes_it_raise(answer: dict[str, Any]) -> None:
    checks, _ = diagnose("loja", answer, CONFIG)

    assert checks


@pytest.mark.parametrize("change", [{}, {"enabled": False, "headers": {"apikey": "x"}}])
@pytest.mark.parametrize("good", [GOOD, GOOD_1])
def test_no_secret_stands_in_any_line_or_repair(
    good: dict[str, Any], change: dict[str, Any]
) -> None:
    url = f"https://u:{SECRET}@viva.example/webhook/evolution/?token={SECRET}"

    checks, repair = diagnose("loja", {**good, "url": url, **change}, CONFIG)

    assert SECRET not in repr(checks) + repr(repair)
