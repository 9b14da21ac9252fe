"""What a query costs depends on what it gives, not on how much is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class

from tests.integration.large_data import BIG, OWNER, SMALL, fill, live_reply
from tests.integration.sample_values import VALUES
from tests.postgres import PostgresServer, run_sql
from viva_server.store.driver.queries import load_queries
from viva_server.values import new_id

_LARGE = {
    "idempotency_keys", "inbox", "journal", "messages", "outbox", "sessions",
    "whatsapp_messages", "whatsapp_turns",
}  # fmt: skip
_LIVE = [live_reply(number) for number in range(1, 51)]


class _Plan(NamedTuple):
    """The nodes of a plan, parents first, and the 8 KiB blocks that it touched."""

    nodes: list[dict[str, Any]]
    buffers: int

    @property
    def shape(self) -> list[tuple[object, ...]]:
        """What is done on which index, without the numbers."""
        keys = ("Node Type", "Scan Direction", "Index Name", "Relation Name")
        return [tuple(node.get(key) for key in keys) for node in self.nodes]

    @property
    def tables_read_whole(self) -> set[str]:
        return {
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] in {"Seq Scan", "Bitmap Heap Scan"}
        }


@pytest.fixture(scope="module")
def large_database(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        fill(url)
        yield url


@pytest.fixture(scope="module", params=["never analyzed", "vacuumed"])
def cursor(large_database: str, request: pytest.FixtureRequest) -> Iterator[Cursor]:
    """A cursor with the settings of our connections; before and after autovacuum."""
    if request.param == "vacuumed":
        run_sql(large_database, "VACUUM ANALYZE")
    prepare = load_queries()["prepare_connection"]
    with closing(psycopg2.connect(large_database)) as connection:
        cursor = connection.cursor()
        cursor.execute(prepare.sql, {name: VALUES[name] for name in prepare.parameters})
        connection.commit()
        yield cursor


def _plan(cursor: Cursor, name: str, values: Mapping[str, object]) -> _Plan:
    """Run the last statement of a query and roll it back."""
    query = load_queries()[name]
    assert values.keys() <= query.parameters
    statement = query.sql.rpartition(";")[2]
    given = {name: VALUES[name] for name in query.parameters} | dict(values)
    try:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", given)
        row = cursor.fetchone()
    finally:
        cursor.connection.rollback()
    assert row is not None
    top = row[0][0]["Plan"]
    return _Plan(
        list(_nodes(top)), top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


_OF_A_SESSION: dict[str, dict[str, object]] = {
    "find_turn": {"person": "ana"},
    "start_reply": {
        "person": "ana", "owner": OWNER, "message_id": new_id(),
        "user_message_id": new_id(),
    },
    "load_history": {},
    "load_messages": {"messages": 50},
    "find_session": {"person": "ana"},
    "lock_session": {"person": "ana"},
    "find_live_reply": {},
}  # fmt: skip


@pytest.mark.parametrize("name", _OF_A_SESSION)
def test_a_million_messages_cost_as_much_as_a_hundred(
    cursor: Cursor, name: str
) -> None:
    plans = []
    for session_id, messages in ((BIG, 1_000_000), (SMALL, 100)):
        values = {"session_id": session_id, **_OF_A_SESSION[name]}
        if name == "start_reply":
            values["expected_count"] = messages
        plans.append(_plan(cursor, name, values))
    big, small = plans
    assert big.shape == small.shape
    assert not big.tables_read_whole & _LARGE
    assert big.buffers <= 60
    # An index on a million rows has a level more, for each look-up.
    assert abs(big.buffers - small.buffers) <= 10


@pytest.mark.parametrize("before_seq", [50, 500_000, 2**31 - 1])
def test_a_page_of_messages_costs_the_same_anywhere(
    cursor: Cursor, before_seq: int
) -> None:
    values = {"session_id": BIG, "before_seq": before_seq, "messages": 121}
    plan = _plan(cursor, "load_messages", values)
    assert not plan.tables_read_whole
    assert plan.buffers <= 30


def _chunks(number: int) -> str:
    return json.dumps([[reply, 500, "x"] for reply in _LIVE[:number]])


def _endings(number: int) -> str:
    ending = ["x", "complete", "stop", None, False]
    return json.dumps([[reply, *ending] for reply in _LIVE[:number]])


_CHAT: dict[str, object] = {"instance": "viva", "jid": "chat 500"}

_HOT: list[tuple[str, dict[str, object], int]] = [
    # What follows the name: values, and how many blocks it may touch.
    ("find_turn", {"session_id": None, "person": "ana"}, 40),
    ("find_turn", {"person": "ana", "key": "key 500"}, 40),
    ("find_newest_session", {"person": "ana"}, 10),
    ("add_first_session", {"person": "somebody new"}, 30),
    ("list_sessions", {"person": "ana"}, 40),
    ("count_sessions", {"person": "person 7"}, 200),
    ("append_chunks", {"owner": OWNER, "chunks": _chunks(1)}, 40),
    ("append_chunks", {"owner": OWNER, "chunks": _chunks(50)}, 40 * 50),
    ("close_replies", {"owner": OWNER, "replies": _endings(1)}, 250),
    ("close_replies", {"owner": OWNER, "replies": _endings(50)}, 250 * 50),
    ("close_from_journal", {"process_id": OWNER, "message_ids": _LIVE}, 250 * 50),
    ("load_reply", {"message_id": _LIVE[0], "person": "reader 1"}, 200),
    ("load_message", {"message_id": _LIVE[0]}, 10),
    ("follow_replies", {"message_ids": _LIVE, "known": [495] * 50}, 20 * 50),
    ("request_end", {"message_id": _LIVE[0]}, 40),
    ("mark_left", {"owner": OWNER, "message_ids": _LIVE[:2], "are_read": [True] * 2},
     60),
    ("renew_far_readers", {"message_ids": _LIVE}, 20 * 50),
    # Both look at all that the owner has: 2000 live replies.
    ("load_requests", {"owner": OWNER}, 6000),
    ("load_owned", {"owner": OWNER}, 2100),
    ("add_webhooks", {}, 80),
    ("claim_chats", {"owner": OWNER, "chats": 20}, 20 * 20),
    ("load_chat", {"owner": OWNER, **_CHAT}, 40),
    ("load_waiting", _CHAT, 20),
    ("claim_sends", {"owner": OWNER, "sends": 20}, 40 * 20),
    ("close_turns", {"owner": OWNER, "replies": _endings(1)}, 250),
    ("load_pending", {"rows": 200}, 20),
    ("apply_receipts", {"receipts": json.dumps([["viva", "sent 99", "READ", 5]])}, 40),
    ("find_own_sends", {"instance": "viva", "jid": "chat 500"}, 60),
    ("apply_handover", {"instance": "viva", "jid": "lid 500"}, 40),
    ("trace_deliveries", {"message_id": "id 500"}, 20),
    ("trace_messages", {"message_id": "id 500"}, 20),
    ("find_turns_of_sent", {"message_id": "sent 500"}, 20),
    ("find_instances", {}, 20),
    ("seconds_since_webhook", {}, 10),
    ("find_stored_messages",
     {"instance": "viva", "message_ids": [f"id {n}" for n in range(1, 101)]}, 800),
    ("show_processes", {}, 2100),
    ("show_replies", {"rows": 20}, 20 * 40),
    ("count_work", {"most": 1000}, 3000),
    ("find_newest_messages", {"rows": 20}, 30),
    ("find_messages_of_phone",
     {"instances": ["viva"], "jids": ["chat 500", "lid 500"], "rows": 20}, 100),
    ("show_messages",
     {"instances": ["viva"] * 20, "message_ids": [f"id {n}" for n in range(1, 21)]},
     20 * 20),
    ("show_dead", {"rows": 26}, 400),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values", "buffers"), _HOT, ids=[name for name, *_ in _HOT]
)
def test_a_hot_query_reads_no_table_whole(
    cursor: Cursor, name: str, values: dict[str, object], buffers: int
) -> None:
    plan = _plan(cursor, name, values)
    assert not plan.tables_read_whole & _LARGE
    assert plan.buffers <= buffers


def test_webhooks_are_counted_in_the_index_and_never_more_than_asked(
    cursor: Cursor,
) -> None:
    # All of the 100 000 came in one statement, so in one minute.
    cursor.execute("SELECT extract(epoch FROM max(received_at)) FROM viva.inbox")
    row = cursor.fetchone()
    assert row is not None
    minute = int(row[0] // 60)
    minutes = list(range(minute - 29, minute + 1))
    plan = _plan(cursor, "count_webhooks", {"minutes": minutes, "most": 2000})
    assert not plan.tables_read_whole & _LARGE
    assert plan.buffers <= 2 * 2000


_FIRST = str(UUID(int=0))
_PERSON: dict[str, object] = {"instance": "viva", "jids": ["chat 500", "lid 500"]}
_IN_BATCHES: list[tuple[str, dict[str, object], int]] = [
    # For each row of a batch a few blocks, however much else is stored.
    ("export_sessions", {"person": "ana", "after_id": _FIRST}, 10),
    ("export_messages", {"session_id": BIG, "after_seq": 500_000}, 10),
    ("export_keys", {"person": "ana", "after_key": "key 5"}, 10),
    ("look_for_deliveries", {"after_id": _FIRST}, 10),
    ("empty_deliveries", {"after_id": _FIRST}, 10),
    ("find_idle_sessions", {"after_id": _FIRST}, 10),
    ("empty_old_deliveries", {"after_id": _FIRST, "old_seconds": 0.0}, 40),
    ("stop_chats", _PERSON, 10),
    ("export_chats", _PERSON, 1),
    ("export_whatsapp_messages", _CHAT, 10),
    ("export_turns", {**_CHAT, "after_id": _FIRST}, 10),
    ("export_sends", {}, 1),
    ("remove_whatsapp_messages", _PERSON, 40),
    ("remove_turns", _PERSON, 40),
    ("remove_chats", _PERSON, 1),
    ("forget_lids", _PERSON, 1),
    ("find_addresses", _PERSON, 10),
    ("remove_old_turns", {"after_id": _FIRST, "old_seconds": 0.0}, 40),
    ("remove_idle_lids", {}, 100),
    ("remove_old_deliveries", {"old_seconds": 0.0}, 40),
    ("find_seqs", {"session_id": BIG}, 1),
    ("remove_messages", {"session_id": BIG, "after_seq": 500_000}, 40),
    ("remove_keys", {"person": "ana"}, 20),
    ("request_ends", {"person": "reader 1"}, 1),
    ("lock_next_session", {"person": "ana"}, 1),
    ("lock_idle_session", {"session_id": SMALL}, 1),
]


@pytest.mark.parametrize(
    ("name", "values", "buffers"), _IN_BATCHES, ids=[name for name, *_ in _IN_BATCHES]
)
def test_a_batch_of_an_export_or_a_removal_reads_no_table_whole(
    cursor: Cursor, name: str, values: dict[str, object], buffers: int
) -> None:
    plan = _plan(cursor, name, values)
    assert not plan.tables_read_whole & _LARGE
    assert plan.buffers <= buffers * int(str(VALUES["batch"]))


def test_many_sessions_are_counted_in_the_index(cursor: Cursor) -> None:
    plan = _plan(cursor, "count_sessions", {"person": "ana"})
    assert ("Index Only Scan", "sessions_newest_idx") in {
        (node["Node Type"], node.get("Index Name")) for node in plan.nodes
    }


def test_a_page_costs_at_most_the_sessions_before_it(cursor: Cursor) -> None:
    plan = _plan(cursor, "list_sessions", {"person": "ana", "skipped": 99_000})
    assert not plan.tables_read_whole
    assert "Sort" not in {node["Node Type"] for node in plan.nodes}
