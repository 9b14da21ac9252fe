"""What a statement gives, how it fails, under which settings it runs."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from traceback import TracebackException
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tests.postgres import PostgresServer, relaying
from viva_server.errors import (
    ConfigError,
    ConstraintError,
    RowError,
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.store.driver.database import Database, Json, ServerFacts
from viva_server.store.driver.queries import load_queries, parse_queries

pytestmark = pytest.mark.both_loops

_INSERT = text("INSERT INTO things VALUES (:id, :word)")
_WORDS = text("SELECT word FROM things ORDER BY id")
_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> str:
    """A query of many types, known by its name."""
    (query,) = parse_queries(
        "-- name: probe\n-- Many types\n"
        "SELECT CAST(:id AS uuid) AS id, CAST(:meta AS jsonb) AS meta,"
        " CAST(:words AS text[]) AS words, CAST(:metas AS jsonb[]) AS metas,"
        " CAST(:items AS jsonb) AS items, '100%' AS percent",
        "probe.sql",
    )
    monkeypatch.setitem(load_queries(), query.name, query)
    return query.name


class _Backend(NamedTuple):
    pid: int


class _Renamed(NamedTuple):
    number: int


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    try:
        await database.open()
        yield database
    finally:
        await database.close()


async def test_rows_are_of_the_kind_that_is_asked_for(db: Database) -> None:
    [row] = await db.fetch("backend", _Backend)
    assert isinstance(row, _Backend)
    assert isinstance(await db.fetch_one("backend", _Backend), _Backend)
    assert await db.fetch_one("find_dead_turn", _Backend, turn_id=_ID) is None
    with pytest.raises(TypeError, match="query backend gives pid: not a _Renamed"):
        await db.fetch("backend", _Renamed)


async def test_rows_are_named_and_typed(db: Database, probe: str) -> None:
    row = await db.fetch_one(
        probe,
        id=_ID,
        meta={"a": [1, None]},
        words=["x%s", "y'", None],
        metas=[None, {"b": 1}],
        items=Json([{"c": 2}]),
    )
    assert row is not None
    assert (row.id, row.meta) == (_ID, {"a": [1, None]})
    assert (row.words, row.metas) == (["x%s", "y'", None], [None, {"b": 1}])
    assert (row.items, row.percent) == ([{"c": 2}], "100%")


async def test_an_empty_list_is_an_empty_array(db: Database, probe: str) -> None:
    rows = await db.fetch(probe, id=_ID, meta={}, words=[], metas=[], items=Json([]))
    assert [(row.words, row.metas, row.items) for row in rows] == [([], [], [])]


async def test_a_wrong_call_reaches_no_database(db: Database) -> None:
    with pytest.raises(LookupError, match="no_such_query"):
        await db.execute("no_such_query")
    with pytest.raises(TypeError, match="has no parameter x"):
        await db.fetch("server_facts", x=1)


async def test_a_refused_row_names_its_constraint(db: Database) -> None:
    await db.fetch_statement(_INSERT, id=1, word="secret-1")
    with pytest.raises(ConstraintError) as caught:
        await db.fetch_statement(_INSERT, id=1, word="secret-2")
    assert caught.value.constraint == "things_pkey"
    with pytest.raises(ConstraintError) as caught:
        await db.fetch_statement(_INSERT, id=2, word="")
    assert caught.value.constraint == "things_word_check"
    with pytest.raises(ConstraintError) as caught:
        await db.fetch_statement(_INSERT, id=None, word="x")
    # NOT NULL has a name of its own since PostgreSQL 18.
    assert caught.value.constraint in {"id", "things_id_not_null"}


@pytest.mark.parametrize(
    "statement",
    [
        text("SELECT CAST('secret' AS integer)"),
        text("SELECT 'secret' FROM nowhere"),
        text("SELECT :word").bindparams(word="secret\0"),
        text("SELECT :word").bindparams(word="secret\ud800"),
        text("SELECT :word").bindparams(word=object()),
    ],
)
async def test_an_error_shows_no_value_in_its_text_nor_in_a_traceback(
    db: Database, statement: sa.TextClause
) -> None:
    with pytest.raises(StoreError) as caught:
        await db.fetch_statement(statement)
    lines = TracebackException.from_exception(caught.value).format()
    shown = [line for line in lines if not line.lstrip().startswith("File")]
    assert "secret" not in "".join(shown)
    assert await db.fetch_statement(_WORDS) == []


@pytest.mark.parametrize(
    ("statement", "kind", "sqlstate"),
    [
        ("INSERT INTO things VALUES (1, '')", ConstraintError, "23514"),
        ("INSERT INTO things VALUES (NULL, 'a')", ConstraintError, "23502"),
        ("SELECT CAST('secret' AS integer)", RowError, "22P02"),
        ("SELECT 1 / 0", RowError, "22012"),
        ("SELECT 'secret' FROM nowhere", StoreRefusedError, "42P01"),
        ("SET ROLE nobody_has_it", RowError, "22023"),
        ("DO $$ BEGIN RAISE 'secret'; END $$", StoreRefusedError, "P0001"),
        ("DO $$ BEGIN RAISE 'x' USING ERRCODE = '42501'; END $$", StoreRefusedError,
         "42501"),
        ("DO $$ BEGIN RAISE 'x' USING ERRCODE = '53100'; END $$",
         StoreUnavailableError, "53100"),
        ("DO $$ BEGIN RAISE 'x' USING ERRCODE = '55P03'; END $$", StoreLockedError,
         "55P03"),
    ],
)  # fmt: skip
async def test_a_class_of_error_says_whether_the_row_is_at_fault(
    db: Database, statement: str, kind: type[StoreError], sqlstate: str
) -> None:
    with pytest.raises(StoreError) as caught:
        await db.execute_script(statement)
    assert (type(caught.value), caught.value.sqlstate) == (kind, sqlstate)


async def test_an_error_names_the_query(db: Database, probe: str) -> None:
    with pytest.raises(StoreError) as caught:
        await db.fetch(probe, id="x", meta={}, words=[], metas=[], items=Json([]))
    assert caught.value.__notes__ == ["in query probe"]


async def test_a_time_out_of_the_server_is_no_cancellation(db: Database) -> None:
    slow = text("SET LOCAL statement_timeout = 50; SELECT pg_sleep(5)")
    with pytest.raises(StoreUnavailableError) as caught:
        await db.fetch_statement(slow)
    assert not caught.value.outcome_unknown


async def test_an_administrators_cancel_is_no_cancellation(db: Database) -> None:
    connection = await db.connect()
    (row,) = await connection.fetch_statement(text("SELECT pg_backend_pid() AS pid"))
    sleeping = text("SELECT pg_sleep(5)")
    sleep = asyncio.create_task(connection.fetch_statement(sleeping))
    await asyncio.sleep(0.1)
    await db.fetch_statement(text("SELECT pg_cancel_backend(:pid)"), pid=row.pid)
    with pytest.raises(StoreUnavailableError) as caught:
        await sleep
    assert not caught.value.outcome_unknown
    assert await connection.fetch_statement(_WORDS) == []
    await connection.close()


async def test_waiting_for_a_lock_can_be_repeated(db: Database) -> None:
    async with db.transaction() as holder:
        await holder.fetch_statement(text("LOCK TABLE things"))
        impatient = text("SET LOCAL lock_timeout = 50; SELECT word FROM things")
        with pytest.raises(TransientStoreError):
            await db.fetch_statement(impatient)
    assert await db.fetch_statement(_WORDS) == []


async def test_a_deadlock_can_be_repeated(db: Database) -> None:
    await db.fetch_statement(text("INSERT INTO things VALUES (1, 'a'), (2, 'b')"))

    async def update(first: int, second: int) -> None:
        change = text("UPDATE things SET word = 'x' WHERE id = :id")
        async with db.transaction() as transaction:
            await transaction.fetch_statement(change, id=first)
            await asyncio.sleep(0.2)
            await transaction.fetch_statement(change, id=second)

    found = await asyncio.gather(update(1, 2), update(2, 1), return_exceptions=True)
    assert {type(each) for each in found} == {type(None), TransientStoreError}


async def test_every_connection_is_durable_and_bounded(database_url: str) -> None:
    async with _opened(
        f"{database_url} options='-c synchronous_commit=off'"
    ) as database:
        show = text(
            "SELECT current_setting('synchronous_commit'),"
            " current_setting('statement_timeout'), current_setting('lock_timeout'),"
            " current_setting('idle_in_transaction_session_timeout'),"
            " current_setting('client_encoding'), current_setting('TimeZone'),"
            " current_setting('application_name'),"
            " current_setting('client_connection_check_interval')"
        )
        (row,) = await database.fetch_statement(show)
    expected = ("on", "6s", "2s", "10s", "UTF8", "UTC", "viva_server", "2s")
    assert row == expected


async def test_a_stronger_durability_stays(database_url: str) -> None:
    async with _opened(
        f"{database_url} options='-c synchronous_commit=remote_apply'"
    ) as found:
        assert (await found.check_server()).synchronous_commit == "remote_apply"


async def test_the_server_is_known(db: Database) -> None:
    facts = await db.check_server()
    assert facts.encoding == "UTF8"
    assert facts.synchronous_commit == "on"
    assert not facts.fsync


async def test_another_encoding_is_refused(db: Database, database_url: str) -> None:
    connection = await db.connect()
    await connection.execute_script("DROP DATABASE IF EXISTS latin")
    await connection.execute_script(
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"
    )
    await connection.close()
    async with _opened(f"{database_url} dbname=latin") as database:
        with pytest.raises(ConfigError, match="encoding is LATIN1, not UTF8"):
            await database.check_server()


@pytest.mark.parametrize(
    ("version", "good"), [(130022, 0), (140000, 1), (180003, 1), (190000, 0)]
)
async def test_only_known_versions_are_accepted(version: int, good: bool) -> None:
    facts = ServerFacts(version, "UTF8", fsync=True, synchronous_commit="on")
    assert (facts.problems() == []) is bool(good)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1,127.0.0.1"])
async def test_every_form_of_address_connects(
    postgres: PostgresServer, host: str
) -> None:
    # ::1 refuses: the port is of 127.0.0.1 only.
    async with (
        relaying(postgres) as relay,
        _opened(f"host={host} port={relay.port} user=viva dbname=postgres") as database,
    ):
        assert await database.fetch("has_migrations") == [(False,)]


async def test_a_url_connects(postgres: PostgresServer) -> None:
    async with (
        relaying(postgres) as relay,
        _opened(f"postgresql://viva@127.0.0.1:{relay.port}/postgres") as database,
    ):
        assert await database.fetch("has_migrations") == [(False,)]


async def test_a_refused_login_says_so_without_the_password(
    postgres: PostgresServer,
) -> None:
    async with relaying(postgres) as relay:
        database = Database(
            f"postgresql://nobody:geheim@127.0.0.1:{relay.port}/postgres"
        )
        with pytest.raises(
            StoreUnavailableError, match='role "nobody" does not exist'
        ) as e:
            await database.open()
        assert not e.value.outcome_unknown
        assert "geheim" not in str(e.value)
        await database.close()


async def test_core_statements_are_compiled_once_and_bound_each_time(
    db: Database,
) -> None:
    things = sa.table("things", sa.column("id", sa.Integer), sa.column("word"))
    ids = sa.bindparam("ids", type_=ARRAY(sa.Integer))
    query = sa.select(things).where(things.c.id == sa.any_(ids)).order_by(things.c.id)
    await db.fetch_statement(sa.insert(things).values(id=1, word="a%"))
    await db.fetch_statement(sa.insert(things).values(id=2, word="b"))
    assert await db.fetch_statement(query, ids=[2]) == [(2, "b")]
    assert await db.fetch_statement(query, ids=[1, 2]) == [(1, "a%"), (2, "b")]


async def test_core_values_go_through_their_types(db: Database) -> None:
    meta = sa.bindparam("meta", type_=JSONB)
    (row,) = await db.fetch_statement(sa.select(meta.label("m")), meta={"a": [1]})
    assert row.m == {"a": [1]}
    day = sa.literal(dt.date(2026, 1, 2))
    assert (await db.fetch_statement(sa.select(day)))[0][0] == dt.date(2026, 1, 2)


async def test_a_core_in_is_refused_before_it_is_compiled_for_one_list(
    db: Database,
) -> None:
    column: sa.ColumnClause[int] = sa.column("id")
    with pytest.raises(TypeError, match="use = ANY"):
        await db.fetch_statement(sa.select(column).where(column.in_([1, 2])))
