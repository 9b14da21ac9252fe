"""Model text is storable before anybody counts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.chat.reply import Storable

ANY_TEXT = st.text(
    st.one_of(
        st.characters(), st.sampled_from("a\0é😀\ud800\ud83d\udbff\udc00\ude00\udfff")
    )
)


def stored(*deltas: str) -> str:
    storable = Storable()
    return "".join([*map(storable.feed, deltas), storable.flush()])


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (["Olá, ", "mundo 😀"], "Olá, mundo 😀"),
        (["a\0b"], "a\ufffdb"),
        (["\ud83d\ude00"], "😀"),
        (["\ud83d", "\ude00"], "😀"),
        (["x\ud83d", "", "\ude00y"], "x😀y"),
        (["\ud83d", "x"], "\ufffdx"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
        (["\ude00x"], "\ufffdx"),
        (["\ud83d"], "\ufffd"),
        ([], ""),
    ],
)
def test_a_reply_becomes_storable(deltas: list[str], expected: str) -> None:
    assert stored(*deltas) == expected


@given(st.lists(ANY_TEXT))
def test_where_the_deltas_are_cut_does_not_matter(deltas: list[str]) -> None:
    text = stored(*deltas)
    assert text == stored("".join(deltas))
    assert "\0" not in text
    text.encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_clean_text_passes_at_once_and_unchanged(text: str) -> None:
    assert Storable().feed(text) == text


@given(ANY_TEXT)
def test_a_reply_starts_anew_after_its_end(text: str) -> None:
    storable = Storable()
    storable.feed(text)
    storable.flush()
    assert storable.flush() == ""
