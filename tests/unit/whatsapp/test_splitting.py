"""A long reply reaches a person whole, in messages that end where one would pause."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from viva_server.whatsapp.conversation.outbox import MAX_MESSAGE_CHARS, split_reply

WORDS = st.text(st.sampled_from("ab.!…\n \t\u00e1e\u0301👍🏽\u200d"), max_size=300)


def test_a_short_reply_is_one_message() -> None:
    assert split_reply("Olá!\n\nTudo bem?") == ["Olá!\n\nTudo bem?"]


def test_a_blank_reply_is_no_message() -> None:
    assert split_reply(" \n\t ") == []


def test_a_message_of_exactly_the_limit_stays_whole() -> None:
    assert split_reply("a" * MAX_MESSAGE_CHARS) == ["a" * MAX_MESSAGE_CHARS]


@pytest.mark.parametrize(
    ("pause", "kept"), [("\n\n", ""), ("\n \n", ""), ("\n", ""), (". ", "."), (" ", "")]
)
def test_the_best_pause_of_the_second_half_is_taken(pause: str, kept: str) -> None:
    worse = {"\n\n": "\n", "\n \n": "\n", "\n": ". ", ". ": " ", " ": ""}[pause]
    text = f"{'a' * 60}{pause}{'b' * 20}{worse}{'c' * 60}"

    assert split_reply(text, 100)[0] == "a" * 60 + kept


def test_a_paragraph_that_ends_early_does_not_make_a_tiny_message() -> None:
    text = "Oi.\n\n" + "palavra " * 30

    assert len(split_reply(text, 100)[0]) > 50


def test_a_part_may_have_the_whole_limit_with_the_blank_behind_it() -> None:
    assert len(split_reply(f"{'x' * 40} {'y' * 59} z", 100)[0]) == 100


def test_a_word_that_is_too_long_is_cut_and_nothing_else_is() -> None:
    parts = split_reply("a" * 250, 100)

    assert parts == ["a" * 100, "a" * 100, "a" * 50]


def test_an_accent_and_an_emoji_are_not_cut_from_what_they_stand_on() -> None:
    family = "👩‍👩‍👧"
    for text in ("e\u0301" * 60, family * 30, "👍🏽" * 60):
        for part in split_reply(text, 101):
            assert not unicodedata.combining(part[0])
            assert part[0] not in "\u200d🏽"
            assert part[-1] != "\u200d"


@given(WORDS, st.integers(1, 60))
@example("a" + " " * 200 + "b", 3)
def test_no_word_is_lost_and_no_part_is_empty_or_too_long(
    text: str, limit: int
) -> None:
    parts = split_reply(text, limit)

    assert all(1 <= len(part) <= limit and part == part.strip() for part in parts)
    joined = "".join(parts)
    assert "".join(joined.split()) == "".join(text.split())


@given(st.lists(st.text("abcé", min_size=1, max_size=10), max_size=60))
def test_words_that_fit_stay_words(words: list[str]) -> None:
    parts = split_reply(" ".join(words), 20)

    assert [word for part in parts for word in part.split()] == words


def test_a_long_run_of_blanks_costs_no_time_to_speak_of() -> None:
    assert split_reply("a" + " \n" * 50_000 + "b") == ["a", "b"]
