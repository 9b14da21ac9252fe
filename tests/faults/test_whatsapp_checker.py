"""The checker of WhatsApp's runs sees what it is for: each defect by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.whatsapp_checker import (
    Asked,
    Evidence,
    Got,
    Part,
    Row,
    Said,
    Turn,
    judge,
)


def evidence(**changes: Any) -> Evidence:
    """Two messages of Ana in two turns, two of Rui in one; all is well."""
    good = Evidence(
        said=[
            Said("a1", "ID-a1", "ana", 100.0, 100.1),
            Said("a2", "ID-a2", "ana", 110.0, 110.1),
            Said("r1", "ID-r1", "rui", 100.0, 100.1),
            Said("r2", "ID-r2", "rui", 101.0, 101.1),
        ],
        asked=[
            Asked(("a1",)),
            Asked(("r1", "r2")),
            Asked(("a2",), earlier=("a1",)),
        ],
        got=[
            Got("ana", ("a1",), "G1"),
            Got("rui", ("r1", "r2"), "G2"),
            Got("ana", ("a2",), "G3"),
        ],
        rows=[
            Row("ID-a1", "T1", None),
            Row("ID-a2", "T3", None),
            Row("ID-r1", "T2", None),
            Row("ID-r2", "T2", None),
        ],
        turns=[
            Turn("T1", "answered", 102.0),
            Turn("T2", "answered", 103.0),
            Turn("T3", "answered", 113.0),
        ],
        parts=[
            Part("T1", 1, "sent", "G1", was_unknown=False),
            Part("T2", 2, "sent", "G2", was_unknown=False),
            Part("T3", 3, "sent", "G3", was_unknown=False),
        ],
    )
    return replace(good, **changes)


def test_a_run_in_which_all_is_well_holds() -> None:
    verdict = judge(evidence())
    assert verdict.broken == []
    assert verdict.held
    assert verdict.figures["answered"] == verdict.figures["messages"] == 4
    assert verdict.figures["sends"] == 3


def test_a_run_without_an_answer_does_not_hold() -> None:
    nothing = Evidence(said=[], asked=[], got=[], rows=[], turns=[], parts=[])
    assert not judge(nothing).held


def _drop_effect(good: Evidence) -> Evidence:
    return replace(good, got=good.got[:-1])


def _send_twice(good: Evidence) -> Evidence:
    return replace(good, got=[*good.got, replace(good.got[0], message_id="G4")])


def _swap_turns(good: Evidence) -> Evidence:
    return replace(good, got=[good.got[2], good.got[1], good.got[0]])


def _swap_within_a_turn(good: Evidence) -> Evidence:
    swapped = replace(good.got[1], tokens=("r2", "r1"))
    return replace(good, got=[good.got[0], swapped, good.got[2]])


def _mix_up_chats(good: Evidence) -> Evidence:
    return replace(good, got=[*good.got[:2], replace(good.got[2], jid="rui")])


def _speak_without_cause(good: Evidence) -> Evidence:
    return replace(good, got=[*good.got, Got("ana", (), "G4")])


def _answer_in_two_turns(good: Evidence) -> Evidence:
    return replace(good, asked=[*good.asked, Asked(("a1", "a2"))])


def _ask_twice(good: Evidence) -> Evidence:
    return replace(good, asked=[*good.asked[:2], Asked(("a2",), ("a1", "a1"))])


def _forget_the_message(good: Evidence) -> Evidence:
    return replace(good, rows=good.rows[1:])


def _pass_over(good: Evidence) -> Evidence:
    return replace(good, rows=[Row("ID-a1", None, "handover"), *good.rows[1:]])


def _leave_a_message(good: Evidence) -> Evidence:
    return replace(good, rows=[Row("ID-a1", None, None), *good.rows[1:]])


def _leave_a_turn(good: Evidence) -> Evidence:
    return replace(good, turns=[*good.turns[:2], Turn("T3", "running", 113.0)])


def _leave_a_send(good: Evidence) -> Evidence:
    waiting = replace(good.parts[2], state="waiting")
    return replace(good, parts=[*good.parts[:2], waiting])


def _forget_who_sent(good: Evidence) -> Evidence:
    other = replace(good.parts[2], message_id="G9")
    return replace(good, parts=[*good.parts[:2], other])


def _call_a_loss_ambiguous(good: Evidence) -> Evidence:
    """The send is of unknown outcome, but the model was never asked."""
    unknown = replace(good.parts[2], state="unknown", message_id=None)
    return replace(
        good,
        asked=good.asked[:2],
        got=good.got[:-1],
        parts=[*good.parts[:2], unknown],
    )


DEFECTS: dict[Callable[[Evidence], Evidence], str] = {
    _drop_effect: "lost: a2",
    _send_twice: "doubled: a1",
    _swap_turns: "disordered: a1, a2",
    _swap_within_a_turn: "disordered: r1, r2",
    _mix_up_chats: "wrong chat: a2 in rui",
    _speak_without_cause: "unexpected: G4 in ana",
    _answer_in_two_turns: "asked in two turns: a1",
    _ask_twice: "the model sees it 2 times: a1",
    _forget_the_message: "not stored: a1",
    _pass_over: "passed over as 'handover': a1",
    _leave_a_message: "waits for ever: a1",
    _leave_a_turn: "a turn runs for ever: T3",
    _leave_a_send: "a send is waiting: turn T3",
    _forget_who_sent: "sent and not recorded: a2",
    _call_a_loss_ambiguous: "lost: a2",
}


@pytest.mark.parametrize(("spoil", "name"), DEFECTS.items())
def test_a_defect_is_named(spoil: Callable[[Evidence], Evidence], name: str) -> None:
    verdict = judge(spoil(evidence()))
    assert name in verdict.broken
    assert not verdict.held


def test_replies_that_cross_are_seen_by_the_order_of_the_outbox_too() -> None:
    verdict = judge(_swap_turns(evidence()))
    assert "sends out of turn: ana" in verdict.broken


def test_a_send_of_unknown_outcome_is_counted_apart() -> None:
    good = evidence()
    unknown = Part("T3", 3, "unknown", None, was_unknown=True)
    unsent = replace(good, got=good.got[:-1], parts=[*good.parts[:2], unknown])
    verdict = judge(unsent)
    assert verdict.broken == []
    assert (verdict.figures["answered"], verdict.figures["ambiguous"]) == (3, 1)
    assert verdict.figures["unknown_and_unsent"] == 1


def test_an_unknown_send_that_arrived_is_an_answer_and_not_settled() -> None:
    good = evidence()
    unknown = Part("T3", 3, "unknown", None, was_unknown=True)
    verdict = judge(replace(good, parts=[*good.parts[:2], unknown]))
    assert verdict.broken == []
    assert verdict.figures["answered"] == 4
    assert verdict.figures["unknown_and_sent"] == 1


def test_a_turn_that_was_given_up_and_said_so_is_counted_apart() -> None:
    good = evidence()
    told = replace(
        good,
        got=[*good.got[:2], Got("ana", (), "G3")],
        turns=[*good.turns[:2], Turn("T3", "dead", 113.0)],
    )
    verdict = judge(told)
    assert verdict.broken == []
    assert (verdict.figures["answered"], verdict.figures["given_up"]) == (3, 1)


def test_a_message_that_nobody_knew_yet_is_late_and_not_out_of_order() -> None:
    good = evidence()
    unknown = replace(good.said[0], known_at=120.0)
    crossed = replace(
        good,
        said=[unknown, *good.said[1:]],
        asked=[*good.asked[1:2], Asked(("a2",)), Asked(("a1",), ("a2",))],
        got=[good.got[1], good.got[2], good.got[0]],
        parts=[
            replace(good.parts[0], seq=4),
            *good.parts[1:],
        ],
    )
    verdict = judge(crossed)
    assert verdict.broken == []
    assert verdict.figures["late"] == 1


def test_the_order_is_not_told_by_a_clock_that_was_ahead() -> None:
    good = evidence()
    crossed = replace(
        good,
        said=[replace(good.said[0], known_at=60.0), *good.said[1:]],
        got=[good.got[1], good.got[2], good.got[0]],
    )
    assert any("disordered" in what for what in judge(crossed).broken)
    crossed = replace(crossed, clock_ahead_seconds=60.0)
    assert not any("disordered" in what for what in judge(crossed).broken)
