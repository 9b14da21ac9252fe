"""Every body of every version gives its normal form, and nothing makes it raise."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.whatsapp.samples import NOW, SAMPLES, tail_of
from viva_server.whatsapp.events.parse import parse_webhook


def assert_gives(form: Any, expect: dict[str, Any]) -> None:
    assert {name: form.get(name, "missing") for name in expect} == expect


def test_there_are_samples_of_all_versions() -> None:
    assert len(SAMPLES) == 87


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_gives_the_normal_form_that_it_expects(name: str) -> None:
    sample = SAMPLES[name]
    form = parse_webhook("", "", sample["headers"], sample["body"], NOW)
    if name == "byevents_group_participants_event_missing":
        form = parse_webhook(tail_of(sample), "", {}, sample["body"], NOW)
    assert_gives(form, sample["expect"])


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if tail_of(s)])
def test_the_path_tells_the_event_when_the_body_does_not(name: str) -> None:
    sample = SAMPLES[name]
    body = {k: v for k, v in sample["body"].items() if k != "event"}
    form = parse_webhook(tail_of(sample), "", {}, body, NOW)
    assert_gives(form, sample["expect"])
