"""A phone number is found however an operator writes it."""

from __future__ import annotations

import pytest

from viva_server.whatsapp.events.addresses import jids_of

MARIA = {"5511988887777@s.whatsapp.net", "551188887777@s.whatsapp.net"}


@pytest.mark.parametrize(
    "written",
    [
        "5511988887777",
        "+55 (11) 98888-7777",
        "551188887777",
        "(11) 98888-7777",
        "011 98888 7777",
        "1188887777",
        "5511988887777@s.whatsapp.net",
        "5511988887777:12@s.whatsapp.net",
        "5511988887777@c.us",
    ],
)
def test_a_brazilian_number_is_found_with_and_without_its_ninth_digit(
    written: str,
) -> None:
    assert set(jids_of(written)) >= MARIA


def test_another_country_is_taken_as_it_is() -> None:
    assert jids_of("+351 912 345 678") == [
        "351912345678@s.whatsapp.net",
        "351912345678@lid",
    ]


@pytest.mark.parametrize("jid", ["103899771998284@lid", "120363000000000000@g.us"])
def test_a_lid_and_a_group_are_found_by_their_jid(jid: str) -> None:
    assert jids_of(jid) == [jid]


@pytest.mark.parametrize(
    "text",
    ["", "x", "1234567", "1" * 21, "@", "a@b", "\N{ARABIC-INDIC DIGIT ONE}" * 11,
     "status@broadcast", "@s.whatsapp.net", "\0" * 9, "9" * 100_000],
)  # fmt: skip
def test_what_is_no_number_is_nobody(text: str) -> None:
    assert jids_of(text) == []
