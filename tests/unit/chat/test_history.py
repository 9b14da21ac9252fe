"""A conversation has a shape that strict servers take, and shorter forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.chat.service import shaped, shortening
from viva_server.responders.protocol import ConversationMessage
from viva_server.values import Channel

ROLES = {"u": "user", "a": "assistant"}


def stored(*lines: str) -> list[ConversationMessage]:
    """Make messages of lines such as "u oi" and "a olá"."""
    return [
        ConversationMessage("user" if line[0] == "u" else "assistant", line[2:])
        for line in lines
    ]


def lines(messages: tuple[ConversationMessage, ...]) -> list[str]:
    return [f"{each.role[0]} {each.content}" for each in messages]


@pytest.mark.parametrize(
    ("given_lines", "right"),
    [
        (["u oi"], ["u oi"]),
        (["u oi", "a olá", "u e?"], ["u oi", "a olá", "u e?"]),
        (["u oi", "u e?"], ["u oi\n\ne?"]),
        (["u 1", "a 2", "a 3", "u 4", "u 5"], ["u 1", "a 2\n\n3", "u 4\n\n5"]),
        (["a sobra", "u oi"], ["u oi"]),
        (["a um", "a dois", "u oi", "u e?"], ["u oi\n\ne?"]),
        ([], []),
    ],
)  # fmt: skip
def test_it_begins_with_the_user_and_roles_alternate(
    given_lines: list[str], right: list[str]
) -> None:
    assert lines(shaped(stored(*given_lines), "web")) == right


def test_on_whatsapp_what_stands_before_the_first_user_is_put_in_front_of_it() -> None:
    messages = stored(
        "a Oi!\n\nTudo bem?", "a Posso ajudar?", "u sim", "u quero", "a ok"
    )
    opening = "[assistente] Oi!\n[assistente] Tudo bem?\n\n[assistente] Posso ajudar?"
    assert lines(shaped(messages, "whatsapp")) == [
        f"u {opening}\n\nsim\n\nquero",
        "a ok",
    ]


def test_shorter_ones_are_the_newest_half_and_the_question_alone() -> None:
    messages = stored("u 1", "a 2", "u 3", "u 4", "a 5", "u 6", "u 7")
    assert [lines(each) for each in shortening(messages, "web")] == [
        ["u 1", "a 2", "u 3\n\n4", "a 5", "u 6\n\n7"],
        ["u 6\n\n7"],
        ["u 7"],
    ]


@pytest.mark.parametrize(
    ("given_lines", "conversations"),
    [(["u 1"], 1), (["u 1", "a 2", "u 3"], 2), (["u 1", "a 2", "a 3", "u 4"], 2)],
)
def test_no_conversation_is_given_twice(
    given_lines: list[str], conversations: int
) -> None:
    assert len(list(shortening(stored(*given_lines), "web"))) == conversations


@given(
    st.lists(st.sampled_from(["u", "a"]), max_size=12),
    st.sampled_from(["web", "whatsapp"]),
)
def test_every_form_is_strict_and_ends_with_the_question(
    roles: list[str], channel: Channel
) -> None:
    messages = stored(*(f"{role} {n}" for n, role in enumerate(roles)), "u question")
    for conversation in shortening(messages, channel):
        spoken = [each.role for each in conversation]
        assert spoken == ["user", "assistant"] * (len(spoken) // 2) + ["user"]
        assert conversation[-1].content.endswith("question")
    assert lines(conversation) == ["u question"]
