"""A database that tests share one after the other shows none what another did."""

from __future__ import annotations

import pytest

from tests.postgres import PostgresServer, run_sql


def _used(postgres: PostgresServer, sql: str) -> str:
    """Use a database for some statements, and give it back."""
    with postgres.emptied_database() as url:
        run_sql(url, sql)
    return url


def test_rows_and_counters_are_gone_when_it_is_given_again(
    postgres: PostgresServer,
) -> None:
    add = (
        "INSERT INTO viva.sessions (id, channel, person)"
        " VALUES (gen_random_uuid(), 'web', 'ana')"
    )
    used = _used(postgres, f"{add}; SELECT setval('viva.outbox_seq_seq', 99)")
    with postgres.emptied_database() as url:
        assert url == used
        assert run_sql(url, "SELECT count(*) FROM viva.sessions") == [(0,)]
        assert run_sql(url, "SELECT nextval('viva.outbox_seq_seq')") == [(1,)]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE viva.another ()",
        "DROP INDEX viva.sessions_newest_idx",
        "ALTER TABLE viva.sessions ALTER COLUMN mode SET DEFAULT 'x'",
        "DELETE FROM viva.migrations",
        "ANALYZE viva.migrations",
        "CREATE TABLE large AS SELECT repeat('x', 99) FROM generate_series(1, 99000)",
    ],
)
def test_one_with_another_schema_is_not_given_again(
    postgres: PostgresServer, change: str
) -> None:
    used = _used(postgres, change)
    with postgres.emptied_database() as url:
        assert url != used
