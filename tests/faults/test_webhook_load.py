"""Webhooks do not wait for the model, and a burst of them is kept; long: `campaign`."""

from __future__ import annotations

from pathlib import Path

from tests.faults import webhook_load
from tests.postgres import PostgresServer


async def test_webhooks_are_answered_while_the_model_thinks(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    figures = await webhook_load.slow_model(
        postgres, tmp_path, chats=10, model_seconds=12.0, rate=50.0, load_seconds=2.0
    )
    assert figures["statuses"] == {200: 110}


async def test_a_burst_is_stored_and_answered_whole(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    figures = await webhook_load.burst(
        postgres, tmp_path, webhooks=500, chats=25, connections=32
    )
    assert figures["statuses"][200] == 500
    assert figures["refused_without_retry_after"] == 0
