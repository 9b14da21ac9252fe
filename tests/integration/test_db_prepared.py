"""Queries that are planned once for a connection, whoever sits in between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from tests.integration.sample_values import VALUES
from tests.postgres import run_sql
from viva_server.errors import StoreUnavailableError, TransientStoreError
from viva_server.store.driver.database import Connection, Database
from viva_server.store.driver.queries import Prepared, find_query, load_queries

_KNOWN = text("SELECT name FROM pg_prepared_statements ORDER BY name")
_ALL = sorted(query.name for query in load_queries().values() if query.prepared)


VALUES_OF_A_BATCH = {key: VALUES[key] for key in ("deliveries", "debounce_seconds")}


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


def prepared(name: str) -> Prepared:
    found = find_query(name).prepared
    assert found is not None
    return found


async def store_nothing(connection: Connection) -> None:
    rows = await connection.fetch("add_webhooks", deliveries="[]", debounce_seconds=2.0)
    assert rows == []


async def names(connection: Connection) -> list[str]:
    return [row.name for row in await connection.fetch_statement(_KNOWN)]


def test_these_queries_are_prepared() -> None:
    assert _ALL == ["add_webhooks", "append_chunks"]


async def test_it_is_prepared_once(connection: Connection) -> None:
    await store_nothing(connection)
    assert await names(connection) == [prepared("add_webhooks").name]
    await store_nothing(connection)  # a second PREPARE of the name would be refused
    runs = text("SELECT generic_plans + custom_plans AS n FROM pg_prepared_statements")
    assert [row.n for row in await connection.fetch_statement(runs)] == [2]


async def test_it_runs_where_a_pooler_goes_to_another_session(
    connection: Connection,
) -> None:
    await store_nothing(connection)
    await connection.execute_script("DEALLOCATE ALL")  # as the other session is
    await store_nothing(connection)
    assert await names(connection) == []  # and is not tried again
    await store_nothing(connection)
    assert await names(connection) == []


async def test_it_runs_where_another_has_taken_its_name(connection: Connection) -> None:
    taken = prepared("add_webhooks").name
    await connection.execute_script(f"PREPARE {taken} AS SELECT 1 / 0 AS id")
    await store_nothing(connection)
    await store_nothing(connection)


async def test_a_lock_is_no_reason_to_give_it_up(
    database: Database, connection: Connection
) -> None:
    async with database.transaction() as blocker:
        await blocker.fetch_statement(text("LOCK TABLE viva.inbox"))
        with pytest.raises((TransientStoreError, StoreUnavailableError)):
            await store_nothing(connection)
    await store_nothing(connection)
    assert await names(connection) == [prepared("add_webhooks").name]


async def test_a_transaction_prepares_nothing(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.fetch("add_webhooks", deliveries="[]", debounce_seconds=2.0)
        assert await transaction.fetch_statement(_KNOWN) == []


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("is_analyzed", [False, True], ids=["empty", "analyzed"])
async def test_a_plan_made_for_small_tables_suits_large_ones(
    database: Database, database_url: str, name: str, is_analyzed: bool
) -> None:
    if is_analyzed:
        await database.fetch("add_webhooks", **VALUES_OF_A_BATCH)
        run_sql(database_url, "ANALYZE")
    connection = await database.connect()
    settings = await connection.fetch_statement(
        text("SELECT name, setting FROM pg_settings WHERE source = 'session'")
    )
    await connection.close()
    with closing(psycopg2.connect(database_url)) as raw, raw.cursor() as cursor:
        for row in settings:
            cursor.execute("SELECT set_config(%s, %s, false)", (row.name, row.setting))
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        query = find_query(name)
        cursor.execute(prepared(name).prepare)
        values = {key: VALUES[key] for key in query.parameters}
        cursor.execute(f"EXPLAIN (FORMAT JSON) {prepared(name).execute}", values)
        ((plan,),) = cursor.fetchall()
    scans = [node for node in _nodes(plan[0]["Plan"]) if "Relation Name" in node]
    whole = [
        node["Relation Name"]
        for node in scans
        if node["Node Type"].endswith("Scan") and "Index Cond" not in node
    ]
    assert whole == [], json.dumps(whole)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    below = [node for part in plan.get("Plans", ()) for node in _nodes(part)]
    return [plan, *below]
