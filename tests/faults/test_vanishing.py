"""Peers whose network is gone; the long version: `campaign`."""

from __future__ import annotations

import pytest

from tests.fakes.model import FakeModel
from tests.faults.fleet import Fleet
from tests.faults.vanishing import can_cut_networks, peers_vanish


async def test_a_peer_that_vanishes_without_a_word_is_noticed_and_left(
    fleet: Fleet, model: FakeModel
) -> None:
    if not can_cut_networks():
        pytest.skip("needs root, ip and network namespaces")
    await peers_vanish(
        fleet,
        model,
        peers=4,
        user_timeout=3.0,
        keep_alive=1.5,
        armed=("mutant:short_times",),
    )
