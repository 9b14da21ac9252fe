"""Ids are UUIDv7 in canonical text."""

from __future__ import annotations

import time
from uuid import RFC_4122, UUID

from viva_server.values import new_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    made = UUID(new_id())
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, RFC_4122)
    assert before <= made.int >> 80 <= after


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_an_id_is_in_its_canonical_spelling() -> None:
    made = new_id()
    assert made == str(UUID(made))
