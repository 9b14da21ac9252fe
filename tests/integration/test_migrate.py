"""Migrations: once each, in order, one process at a time; equal to schema.sql."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import resources

import psycopg2
import pytest

from tests.postgres import PostgresServer, run_sql
from viva_server.errors import SchemaError, StoreError, StoreUnavailableError
from viva_server.store.driver.database import Database
from viva_server.store.migrate import (
    Migration,
    SchemaState,
    load_migrations,
    migrate,
    schema_state,
)

FIRST = Migration(1, "0001_first.sql", "CREATE SCHEMA viva; CREATE TABLE viva.a ();")
SECOND = Migration(
    2,
    "0002_second.sql",
    "CREATE TABLE viva.b (); COMMENT ON TABLE viva.b IS '100 %, :no parameter';",
)
BROKEN = Migration(3, "0003_broken.sql", "CREATE TABLE viva.c (); SELECT 1 / 0;")


@pytest.fixture
def empty_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database(template="template0") as url:
        yield url


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    database = Database(empty_url)
    await database.open()
    yield database
    await database.close()


def tables(url: str) -> set[str]:
    rows = run_sql(url, "SELECT relname FROM pg_stat_user_tables")
    return {row[0] for row in rows}


async def test_an_empty_database_gets_all_migrations_in_order(
    empty: Database, empty_url: str
) -> None:
    assert await migrate(empty, [FIRST, SECOND]) == [FIRST.name, SECOND.name]
    assert tables(empty_url) == {"a", "b", "migrations"}
    comment = run_sql(empty_url, "SELECT obj_description('viva.b'::regclass)")
    assert comment == [("100 %, :no parameter",)]


@pytest.mark.both_loops
async def test_what_is_applied_is_not_applied_again(empty: Database) -> None:
    await migrate(empty, [FIRST])
    assert await migrate(empty, [FIRST, SECOND]) == [SECOND.name]
    assert await migrate(empty, [FIRST, SECOND]) == []


async def test_a_failing_migration_leaves_nothing_of_itself(
    empty: Database, empty_url: str
) -> None:
    with pytest.raises(StoreError):
        await migrate(empty, [FIRST, SECOND, BROKEN])
    assert tables(empty_url) == {"a", "b", "migrations"}
    assert await schema_state(empty, [FIRST, SECOND]) == SchemaState("current")


async def test_the_state_names_what_differs(empty: Database) -> None:
    assert await schema_state(empty, [FIRST]) == SchemaState("behind", (FIRST.name,))
    await migrate(empty, [FIRST, SECOND])
    assert await schema_state(empty, [FIRST, SECOND]) == SchemaState("current")
    assert await schema_state(empty, [FIRST]) == SchemaState("ahead", (SECOND.name,))
    edited = replace(FIRST, sql=FIRST.sql + " ")
    assert await schema_state(empty, [edited, SECOND]) == SchemaState(
        "altered", (FIRST.name,)
    )


async def test_a_server_starts_on_the_current_schema_only(empty: Database) -> None:
    with pytest.raises(SchemaError, match=r"misses 0001_first\.sql.*migrate"):
        (await schema_state(empty, [FIRST])).require_current()
    await migrate(empty, [FIRST, SECOND])
    (await schema_state(empty, [FIRST, SECOND])).require_current()
    with pytest.raises(SchemaError, match=r"newer.*0002_second\.sql"):
        (await schema_state(empty, [FIRST])).require_current()


async def test_an_altered_migration_stops_everything(
    empty: Database, empty_url: str
) -> None:
    await migrate(empty, [FIRST])
    edited = replace(FIRST, sql=FIRST.sql + " ")
    with pytest.raises(SchemaError, match=r"0001_first\.sql"):
        await migrate(empty, [edited, SECOND])
    assert "b" not in tables(empty_url)


async def test_a_newer_database_is_left_as_it_is(empty: Database) -> None:
    await migrate(empty, [FIRST, SECOND])
    assert await migrate(empty, [FIRST]) == []


async def test_of_many_processes_one_migrates_and_all_wait_for_it(
    empty_url: str,
) -> None:
    databases = [Database(empty_url) for _ in range(4)]
    slow = replace(FIRST, sql=FIRST.sql + " SELECT pg_sleep(0.5);")
    applied = await asyncio.gather(
        *(migrate(database, [slow, SECOND]) for database in databases)
    )
    states = [await schema_state(each, [slow, SECOND]) for each in databases]
    for database in databases:
        await database.close()
    assert sorted(map(len, applied)) == [0, 0, 0, 2]
    assert states == [SchemaState("current")] * 4


async def test_waiting_for_another_process_has_an_end(
    empty: Database, empty_url: str
) -> None:
    with closing(psycopg2.connect(empty_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [0x76697661])
        with pytest.raises(StoreUnavailableError, match="migrating"):
            await migrate(empty, [FIRST], lock_seconds=0.3)
    assert await migrate(empty, [FIRST], lock_seconds=5) == [FIRST.name]


async def test_a_migration_waits_for_tables_in_use(
    empty: Database, empty_url: str
) -> None:
    await migrate(empty, [FIRST])
    wide = Migration(2, "0002_wide.sql", "ALTER TABLE viva.a ADD COLUMN n int;")
    with closing(psycopg2.connect(empty_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE viva.a IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(migrate(empty, [FIRST, wide]))
        # Longer than one statement waits for a lock.
        await asyncio.sleep(2.5)
        assert not migrating.done()
        other.rollback()
        assert await migrating == [wide.name]


async def test_the_template_of_the_tests_counts_as_migrated(
    database: Database,
) -> None:
    assert await schema_state(database) == SchemaState("current")
    assert await migrate(database) == []


async def test_schema_and_migrations_make_the_same_database(
    empty: Database, empty_url: str, database_url: str
) -> None:
    assert load_migrations()
    await migrate(empty)
    migrated, written = schema_of(empty_url), schema_of(database_url)
    assert any("viva.messages" in line for line in written)
    assert migrated == written


def test_no_migration_commits_by_itself() -> None:
    for migration in load_migrations():
        words = re.sub(r"--[^\n]*", "", migration.sql).upper()
        assert not re.search(r"\b(BEGIN|COMMIT|CONCURRENTLY)\b\s*[;\w]", words)


def test_the_sql_folder_holds_a_schema_and_numbered_migrations() -> None:
    assert (resources.files("viva_server.sql") / "schema.sql").is_file()
    assert [each.version for each in load_migrations()][:1] == [1]


# What a statement could notice. Columns are counted anew: a dropped one leaves a gap.
CATALOG = """
SELECT concat_ws(
    ' ', 'column', a.attrelid::regclass,
    row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
    format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
    pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)
)
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'viva'::regnamespace
UNION ALL
SELECT concat_ws(
    ' ', 'relation', oid::regclass, relkind, relpersistence, reloptions::text
)
FROM pg_class WHERE relnamespace = 'viva'::regnamespace
UNION ALL
SELECT concat_ws(
    ' ', 'constraint', conrelid::regclass, conname, convalidated,
    pg_get_constraintdef(oid)
)
FROM pg_constraint WHERE connamespace = 'viva'::regnamespace
UNION ALL
SELECT concat_ws(' ', 'index', indexdef) FROM pg_indexes WHERE schemaname = 'viva'
UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(oid))
FROM pg_proc WHERE pronamespace = 'viva'::regnamespace AND prokind IN ('f', 'p')
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid))
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'viva'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT concat_ws(' ', 'view', viewname, definition)
FROM pg_views WHERE schemaname = 'viva'
UNION ALL
SELECT concat_ws(' ', 'type', t.typname, e.enumsortorder, e.enumlabel)
FROM pg_type AS t JOIN pg_enum AS e ON e.enumtypid = t.oid
WHERE t.typnamespace = 'viva'::regnamespace
UNION ALL
SELECT concat_ws(' ', 'extension', extname) FROM pg_extension
"""


def schema_of(url: str) -> list[str]:
    """Describe all of the schema viva, in an order of its own."""
    return sorted(row[0] for row in run_sql(url, CATALOG))
