"""What a new message does: each rule, and their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.chat.admission import (
    Decision,
    FirstSession,
    Follow,
    InProgress,
    NoMessage,
    NoSession,
    NotNewest,
    OtherBody,
    Question,
    Start,
    Supersede,
    decide,
    title_of,
)
from viva_server.store.people import Person
from viva_server.store.replies import TurnState

ANA = Person("web", "ana")


def question(**changes: Any) -> Question:
    return Question(**{"person": ANA, "content": "oi", **changes})


def state(**changes: Any) -> TurnState:
    """Give a session with one finished turn, "oi" and its answer."""
    quiet: dict[str, Any] = {
        "session_id": "s",
        "message_count": 2,
        "newest_id": "a",
        "newest_role": "assistant",
        "newest_status": "complete",
        "user_message_id": "u",
        "same_text": True,
        "live_id": None,
        "live_is_read": True,
        "key_message_id": None,
        "same_body": None,
    }
    return TurnState(**{**quiet, **changes})


NOTHING: dict[str, Any] = dict.fromkeys(TurnState._fields) | {"live_is_read": True}
LIVE: dict[str, Any] = {"live_id": "a", "newest_status": "streaming"}
UNREAD: dict[str, Any] = {**LIVE, "live_is_read": False}
FAILED: dict[str, Any] = {"newest_status": "failed"}
SAME_KEY: dict[str, Any] = {"key_message_id": "k", "same_body": True}
OTHER_KEY: dict[str, Any] = {"key_message_id": "k", "same_body": False}
NEW = Start("s", 2, None)
CURSOR = {"cursor_id": "a"}
AGAIN = {"content": "", "replaces": "a"}

CASES: list[tuple[dict[str, Any], dict[str, Any], Decision]] = [
    ({}, NOTHING, FirstSession()),
    ({"session_id": "x"}, NOTHING, NoSession()),
    ({}, {"newest_id": None, "newest_role": None, "newest_status": None}, NEW),
    ({}, {}, NEW),
    # The key comes first, whatever else is so.
    ({"key": "k"}, SAME_KEY, Follow("k")),
    ({"key": "k"}, OTHER_KEY, OtherBody()),
    ({"key": "k"}, NOTHING | SAME_KEY, Follow("k")),
    ({"key": "k", "session_id": "x"}, NOTHING | OTHER_KEY, OtherBody()),
    ({"key": "k", **CURSOR}, LIVE | SAME_KEY, Follow("k")),
    ({"key": "k", **CURSOR}, UNREAD | OTHER_KEY, OtherBody()),
    ({"key": "k"}, FAILED | SAME_KEY, Follow("k")),
    # Then the cursor: of the newest reply, with the same text.
    (CURSOR, {}, Follow("a")),
    (CURSOR, LIVE, Follow("a")),
    (CURSOR, UNREAD, Follow("a")),
    (CURSOR, FAILED, Follow("a")),
    (CURSOR, {"same_text": False}, NEW),
    (CURSOR, {"same_text": None}, NEW),
    ({"cursor_id": "older"}, {}, NEW),
    ({"cursor_id": "older"}, LIVE, InProgress("a")),
    (CURSOR, {"newest_role": "user"}, NEW),
    # Then the one live reply.
    ({}, LIVE, InProgress("a")),
    ({}, UNREAD, Supersede("a")),
    (CURSOR, LIVE | {"same_text": False}, InProgress("a")),
    # Then the retry of a failed one: the stored question is answered.
    ({}, FAILED, Start("s", 2, "u")),
    ({}, FAILED | {"same_text": False}, NEW),
    ({}, {"newest_status": "partial"}, NEW),
    # Another answer: the key, whether it is there and the newest, the live one.
    (AGAIN, NOTHING, NoMessage()),
    (AGAIN, {"newest_id": "b"}, NotNewest()),
    (AGAIN, LIVE | {"newest_id": "b"}, NotNewest()),
    (AGAIN, LIVE, InProgress("a")),
    (AGAIN, UNREAD, Supersede("a")),
    (AGAIN, {"same_text": False}, Start("s", 2, "u", "a")),
    (AGAIN, FAILED, Start("s", 2, "u", "a")),
    (AGAIN, SAME_KEY | {"newest_id": "b"}, Follow("k")),
    (AGAIN, NOTHING | SAME_KEY, Follow("k")),
]


@pytest.mark.parametrize(("asked", "seen", "decision"), CASES)
def test_a_message_does_what_the_rules_say(
    asked: dict[str, Any], seen: dict[str, Any], decision: Decision
) -> None:
    assert decide(question(**asked), state(**seen)) == decision


def test_the_body_of_a_key_is_message_session_and_mode() -> None:
    base = question(session_id="s", mode="m")
    assert base.body_sha256 == question(session_id="s", mode="m").body_sha256
    unequal = [
        question(content="oi!", session_id="s", mode="m"),
        question(session_id="t", mode="m"),
        question(session_id="s", mode="n"),
        question(session_id="s"),
        question(mode="m"),
    ]
    assert len({base.body_sha256, *(each.body_sha256 for each in unequal)}) == 6
    same = question(
        session_id="s",
        mode="m",
        key="k",
        context_length=3,
        cursor_id="c",
        cursor_offset=1,
        person=Person("web", "bia"),
    )
    assert same.body_sha256 == base.body_sha256


texts = st.text(alphabet=st.sampled_from("ab:1é 0"), max_size=6)


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_no_two_bodies_give_one_hash(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    hashes = {
        question(content=content, session_id=session, mode=mode).body_sha256
        for content, session, mode in (one, other)
    }
    assert (len(hashes) == 1) is (one == other)


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("oi", "oi"),
        ("  duas\n\tpalavras  ", "duas palavras"),
        ("a" * 60, "a" * 60),
        ("a" * 61, "a" * 59 + "…"),
        ("palavra " * 20, "palavra " * 6 + "palavra…"),
    ],
)
def test_a_title_is_the_first_words(content: str, title: str) -> None:
    assert title_of(content) == title


@given(st.text(min_size=1))
def test_a_title_never_has_more_than_sixty_characters(content: str) -> None:
    assert len(title_of(content)) <= 60
