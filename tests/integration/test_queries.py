"""Every query of sql/queries fits the schema and the code that runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class

import viva_server
from tests.integration.sample_values import NULLABLE, VALUES
from tests.postgres import PostgresServer
from viva_server.store.driver.queries import Query, load_queries

_QUERIES = load_queries()
_METHODS = frozenset({"execute", "fetch", "fetch_one"})
# A literal of psycopg2 has no type, but for these; an array is one of its items.
_TYPES = {bool: "boolean", float: "numeric", bytes: "bytea"}

_Call = tuple[str, frozenset[str] | None]


@pytest.fixture(scope="module")
def cursor(postgres: PostgresServer) -> Iterator[Cursor]:
    """One for all: nothing here is executed."""
    with postgres.database() as url, closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection.cursor()


def _statements(query: Query) -> list[str]:
    """Give the statements of one query, which has no semicolon but between them."""
    return [statement for statement in query.sql.split(";") if statement.strip()]


def _type(value: object) -> str:
    if isinstance(value, list):
        item = _type(value[0])
        return "text[]" if item == "unknown" else f"{item}[]"
    if type(value) is int:
        return "integer" if value < 2**31 else "bigint"
    return _TYPES.get(type(value), "unknown")


def _prepared(statement: str, query: Query) -> str:
    """Write a statement as PREPARE takes it, each parameter with its type."""
    names = sorted(name for name in query.parameters if f"%({name})s" in statement)
    for number, name in enumerate(names, start=1):
        statement = statement.replace(f"%({name})s", f"${number}")
    types = ", ".join(_type(VALUES[name]) for name in names)
    # Doubled for psycopg2, which sees no parameters here.
    return f"PREPARE probe {f'({types})' if types else ''} AS {statement}".replace(
        "%%", "%"
    )


def _calls() -> Iterator[_Call]:
    """Give the queries that the package runs, by what its source says."""
    for file in Path(viva_server.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (call := _call(node)) is not None:
                yield call


def _call(node: ast.Call) -> _Call | None:
    """Give name and parameters of a query's run; None where they come as a dict."""
    function, first = node.func, node.args[0] if node.args else None
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return None
    if isinstance(function, ast.Name) and function.id == "find_query":
        return first.value, None
    if not isinstance(function, ast.Attribute) or function.attr not in _METHODS:
        return None
    given = [keyword.arg for keyword in node.keywords]
    names = frozenset(name for name in given if name is not None)
    return first.value, names if None not in given else None


@pytest.mark.parametrize("name", _QUERIES)
def test_a_query_can_be_prepared(cursor: Cursor, name: str) -> None:
    query = _QUERIES[name]
    for statement in _statements(query):
        cursor.execute(_prepared(statement, query))
        cursor.execute("DEALLOCATE probe")


@pytest.mark.parametrize("name", _QUERIES)
def test_a_query_is_understood_as_the_driver_sends_it(
    cursor: Cursor, name: str
) -> None:
    query = _QUERIES[name]
    values = {key: VALUES[key] for key in query.parameters}
    nulls = {
        key: [None] if isinstance(values[key], list) else None
        for key in NULLABLE & query.parameters
    }
    for statement in _statements(query):
        cursor.execute(f"EXPLAIN {statement}", values)
        cursor.execute(f"EXPLAIN {statement}", {**values, **nulls})


def test_every_query_that_the_code_runs_is_there_with_its_parameters() -> None:
    for name, given in _calls():
        assert name in _QUERIES
        assert given is None or given == _QUERIES[name].parameters, name


def test_every_query_is_run_by_the_code() -> None:
    assert set(_QUERIES) == {name for name, _ in _calls()}


def test_every_parameter_has_a_sample() -> None:
    used = frozenset().union(*(query.parameters for query in _QUERIES.values()))
    assert used == VALUES.keys()
