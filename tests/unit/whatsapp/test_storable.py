"""What is encoded has no secret of ours in it, and nothing that jsonb refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viva_server.whatsapp.ingress.secrets import REMOVED, hide, storable

CANARY = "canary-5f2c9e"
texts = st.text(alphabet='ab"\\\n\x00\ud800\x1féã😀/', max_size=12)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@pytest.mark.parametrize("secret", [CANARY, 'quo"ted-\\secret', "ségrêdo-ção-😀"])
def test_a_secret_is_taken_out_wherever_it_stands(secret: str) -> None:
    value = {"a": f"x{secret}y", secret: [{"b": secret}, 1, None]}
    clean, encoded = storable(value, ("another-secret", secret))
    assert clean == {"a": f"x{REMOVED}y", REMOVED: [{"b": REMOVED}, 1, None]}
    assert json.loads(encoded) == clean
    assert hide(f"a {secret}", (secret,)) == f"a {REMOVED}"


@pytest.mark.parametrize("secret", ["8letters", CANARY, 'quo"ted-\\secret'])
@pytest.mark.parametrize("where", ["text", "middle", "name", "list", "deep"])
def test_a_secret_is_taken_out_where_it_stands_alone(secret: str, where: str) -> None:
    values: dict[str, Any] = {
        "text": {"a": secret},
        "middle": {"a": f"x{secret}y{secret}z"},
        "name": {f"x{secret}y": 1},
        "list": ["a", f"x{secret}"],
        "deep": {"a": [{"b": [f"{secret}y"]}]},
    }
    clean, encoded = storable(values[where], (secret,))
    assert secret not in "".join(_texts(clean))
    assert json.loads(encoded) == clean


def test_a_short_secret_takes_no_words_out_of_texts() -> None:
    value = {"a": "abacate"}
    assert storable(value, ("aba",))[0] == value
    assert hide("abacate", ("aba",)) == "abacate"


def test_what_needs_nothing_is_given_back_as_it_is() -> None:
    value: dict[str, Any] = {"a": ["b", {"c": "the text \\u0000"}]}
    clean, encoded = storable(value, (CANARY,))
    assert clean == value
    assert json.loads(encoded) == value


@given(values, st.text(alphabet='ab"\\\n\x1fé😀', min_size=8, max_size=10))
def test_no_text_is_left_that_jsonb_refuses(value: object, secret: str) -> None:
    clean, encoded = storable(value, (secret,))
    assert json.loads(encoded) == clean
    for text in _texts(clean):
        text.encode()
        assert "\x00" not in text
        assert secret not in text


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(t for item in value.values() for t in _texts(item))]
    return [t for item in value for t in _texts(item)] if type(value) is list else []
