"""What an answer to sendText means where Evolution itself is not needed to see it."""

from __future__ import annotations

from typing import Any

import pytest

from viva_server.whatsapp.evolution.client import Answer, outcome_of_answer


@pytest.mark.parametrize("status", [408, 500, 501, 504, 520, 599])
def test_what_may_have_been_carried_out_is_unknown(status: int) -> None:
    assert outcome_of_answer(Answer(status)).kind == "unknown"


@pytest.mark.parametrize("status", [300, 308, 399, 400, 404, 409, 410, 413, 422, 499])
def test_what_was_refused_is_dead(status: int) -> None:
    outcome = outcome_of_answer(Answer(status))
    assert outcome.kind == "dead"
    assert (outcome.reason == "redirect") is (status < 400)


@pytest.mark.parametrize(
    "body",
    [
        {"key": {"id": " A1\n"}},
        {"data": {"Info": {"ID": "A1"}}},
        {"data": {"Info": {"Id": "A1"}}},
        {"key": {"id": "A1"}, "data": {"Info": {"ID": "B2"}}},
    ],
)
def test_the_id_of_what_was_sent_is_found_in_every_generation(body: Any) -> None:
    outcome = outcome_of_answer(Answer(201, body))
    assert (outcome.kind, outcome.message_id) == ("sent", "A1")


def test_an_id_can_be_stored_whatever_it_holds() -> None:
    outcome = outcome_of_answer(Answer(200, {"key": {"id": "\x00\ud800" + "x" * 999}}))
    assert outcome.message_id == "\ufffd\ufffd" + "x" * 253


@pytest.mark.parametrize(
    ("status", "exists", "reason"),
    [
        (400, False, "not_on_whatsapp"),
        (400, True, "refused"),
        (400, None, "refused"),
        (403, False, "forbidden"),
    ],
)
def test_only_the_number_check_says_that_a_person_is_not_on_whatsapp(
    status: int, exists: object, reason: str
) -> None:
    body = {"response": {"message": [{"exists": exists, "jid": "x"}]}}
    assert outcome_of_answer(Answer(status, body)).reason == reason
