from __future__ import annotations

import re
from pathlib import Path

import pytest

from viva_server.store.driver.queries import (
    Query,
    find_query,
    load_queries,
    parse_queries,
    read_folder,
)


def _parse(sql: str) -> Query:
    (query,) = parse_queries(f"-- name: probe\n-- A probe\n{sql}", "file.sql")
    return query


def test_a_query_has_name_comment_sql_and_parameters() -> None:
    query = _parse("SELECT :word\nFROM things WHERE id = CAST(:id AS uuid);\n")
    assert query == Query(
        "probe",
        "A probe",
        "SELECT %(word)s\nFROM things WHERE id = CAST(%(id)s AS uuid)",
        frozenset({"word", "id"}),
    )


def test_a_file_holds_several_queries() -> None:
    text = "\n-- name: one\n-- First\nSELECT 1;\n\n-- name: two\n-- Second\nSELECT 2\n"
    assert [(q.name, q.sql) for q in parse_queries(text, "file.sql")] == [
        ("one", "SELECT 1"),
        ("two", "SELECT 2"),
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ':a', :b", "SELECT ':a', %(b)s"),
        ("SELECT 'it''s :a', :b", "SELECT 'it''s :a', %(b)s"),
        (r"SELECT E'\':a', :b", r"SELECT E'\':a', %(b)s"),
        (r"SELECT '\', :b", r"SELECT '\', %(b)s"),
        ('SELECT 1 AS ":a", :b', 'SELECT 1 AS ":a", %(b)s'),
        ("SELECT $$ :a $$, $x$ :a $$ $x$, :b", "SELECT $$ :a $$, $x$ :a $$ $x$, %(b)s"),
        ("SELECT -- not :a, it's\n:b", "SELECT  \n%(b)s"),
        ("SELECT /* :a\n' */ :b; -- end", "SELECT   %(b)s"),
        ("SELECT :b % 2, '%'", "SELECT %(b)s %% 2, '%%'"),
        ("SELECT x[1:2], :b", "SELECT x[1:2], %(b)s"),
    ],
)
def test_only_parameters_are_replaced(sql: str, expected: str) -> None:
    query = _parse(sql)
    assert query.sql == expected
    assert query.parameters == {"b"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-- name: a\n-- A\nSELECT :x::int", "'::' is refused"),
        ("-- name: a\n-- A\nSELECT 'x", "' is not closed"),
        ("-- name: a\nSELECT 1", "needs a comment line"),
        ("-- name: a\n--\nSELECT 1", "needs a comment line"),
        ("-- name: a", "needs a comment line"),
        ("-- name: a\n-- A\n;\n", "has no SQL"),
        ("-- name: a\n-- A\n-- more\n", "has no SQL"),
        ("-- name: a\n-- A\nSELECT 1;\n-- name b\n-- B\nSELECT 2", "file.sql:4: write"),
        ("-- name: a\n-- A\nSELECT 1;\n--name: b\n-- B\nSELECT 2", "file.sql:4: write"),
        ("-- name: Big\n-- A\nSELECT 1", "file.sql:1: write"),
        ("-- name: a b\n-- A\nSELECT 1", "file.sql:1: write"),
        ("SELECT 1;\n-- name: a\n-- A\nSELECT 1", "SQL before the first"),
    ],
)
def test_a_broken_file_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_queries(text, "file.sql")


def test_a_name_is_unique_over_all_files(tmp_path: Path) -> None:
    for file in ("a.sql", "b.sql"):
        (tmp_path / file).write_text("-- name: same\n-- A\nSELECT 1")
    with pytest.raises(ValueError, match=r"b\.sql: a second query named same"):
        read_folder(tmp_path)


def test_exactly_the_parameters_must_be_given() -> None:
    query = _parse("SELECT :a, :b")
    query.check({"a": 1, "b": 2}.keys())
    with pytest.raises(TypeError, match="query probe misses b, has no parameter c"):
        query.check({"a": 1, "c": 2}.keys())


def test_the_package_brings_its_queries() -> None:
    assert find_query("server_facts") is load_queries()["server_facts"]


def test_an_unknown_query_is_named() -> None:
    with pytest.raises(LookupError, match="no query is named 'nothing'"):
        find_query("nothing")


def test_a_prepared_query_has_the_server_s_parameters() -> None:
    text = (
        "-- name: often, prepared\n-- Runs often.\n"
        "SELECT :b, CAST(:a AS text), :b LIKE 'x%'"
    )
    (query,) = parse_queries(text, "x.sql")
    assert query.prepared is not None
    assert re.fullmatch(r"viva_often_[0-9a-f]{8}", query.prepared.name)
    assert query.prepared.prepare == (
        f"PREPARE {query.prepared.name} AS SELECT $1, CAST($2 AS text), $1 LIKE 'x%'"
    )
    assert query.prepared.execute == f"EXECUTE {query.prepared.name} (%(b)s, %(a)s)"
    assert query.sql == "SELECT %(b)s, CAST(%(a)s AS text), %(b)s LIKE 'x%%'"


def test_another_statement_of_the_name_is_another_prepared_one() -> None:
    names = set()
    for sql in ("SELECT 1", "SELECT 2"):
        (query,) = parse_queries(f"-- name: often, prepared\n-- Why.\n{sql}", "x.sql")
        assert query.prepared is not None
        names.add(query.prepared.name)
    assert len(names) == 2
