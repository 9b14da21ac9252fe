"""The named queries of sql/queries: read, checked and made ready for the driver."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

_NAME_LINE = re.compile(r"-- name: ([a-z][a-z0-9_]*)(, prepared)?")
_LIKE_NAME_LINE = re.compile(r"\s*--+\s*name\b", re.IGNORECASE)

# Strings, quoted names and comments first, so that nothing in them is a parameter.
_TOKEN = re.compile(
    r"""
    (?P<opaque>
        (?<!\w)[eE]'(?:[^'\\]|''|\\.)*'
      | '(?:[^']|'')*'
      | "(?:[^"]|"")*"
      | (?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)
      | --[^\n]*
      | /\*.*?\*/
    )
  | (?P<unclosed>['"]|/\*)
  | (?P<cast>::)
  | :(?P<parameter>[A-Za-z_]\w*)
  | (?P<percent>%)
    """,
    re.VERBOSE | re.DOTALL,
)


_DRIVER_TOKEN = re.compile(r"%%|%\((?P<parameter>\w+)\)s")


class Prepared(NamedTuple):
    """A statement that the server parses and plans once for each connection."""

    name: str
    prepare: str
    execute: str


class Statement(NamedTuple):
    """What a connection is to run; with None for the parameters `%` is not doubled."""

    sql: str
    parameters: Mapping[str, object] | None
    prepared: Prepared | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with psycopg2's `%(name)s` parameters, and what it is for.

    One that the files call `prepared` runs so often that to plan it costs a third of
    PostgreSQL's time; its plan must be good for tables of any size.
    """

    name: str
    comment: str
    sql: str
    parameters: frozenset[str]
    prepared: Prepared | None = None

    def check(self, given: Collection[str]) -> None:
        """Raise TypeError unless exactly the query's parameters are given."""
        if self.parameters == given:
            return
        missing = sorted(self.parameters.difference(given))
        unknown = sorted(set(given).difference(self.parameters))
        problems = [f"misses {name}" for name in missing]
        problems += [f"has no parameter {name}" for name in unknown]
        raise TypeError(f"query {self.name} " + ", ".join(problems))


def find_query(name: str) -> Query:
    """Return the query of that name; the files are read at the first call.

    Raises:
        LookupError: there is none.
        ValueError: a file breaks the convention.
    """
    try:
        return load_queries()[name]
    except KeyError:
        raise LookupError(f"no query is named {name!r} in sql/queries") from None


@functools.cache
def load_queries() -> dict[str, Query]:
    """Return all queries of the package viva_server.sql, by name."""
    return read_folder(files("viva_server.sql") / "queries")


def read_folder(folder: Traversable) -> dict[str, Query]:
    """Return the queries of a folder's .sql files; all share one namespace."""
    queries: dict[str, Query] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        for query in parse_queries(file.read_text(encoding="utf-8"), file.name):
            if query.name in queries:
                raise ValueError(f"{file.name}: a second query named {query.name}")
            queries[query.name] = query
    return queries


def parse_queries(text: str, source: str) -> list[Query]:
    """Return the queries of one file: name line, one comment line, SQL, repeated.

    Raises:
        ValueError: the text breaks the convention; it names `source` and the query.
    """
    return [_parse_query(head, lines, source) for head, lines in _blocks(text, source)]


def _blocks(text: str, source: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    head: re.Match[str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _NAME_LINE.fullmatch(line):
            if head is not None:
                yield head, lines
            head, lines = match, []
        elif _LIKE_NAME_LINE.match(line):
            raise ValueError(f"{source}:{number}: write it as '-- name: some_name'")
        elif head is not None:
            lines.append(line)
        elif line.strip() and not line.startswith("-- "):
            raise ValueError(f"{source}:{number}: SQL before the first '-- name:'")
    if head is not None:
        yield head, lines


def _parse_query(head: re.Match[str], lines: list[str], source: str) -> Query:
    name, is_prepared = head.groups()
    first = lines[0] if lines else ""
    comment = first.removeprefix("-- ").strip()
    if comment == first.strip() or not comment:
        raise ValueError(f"{source}: query {name} needs a comment line below its name")
    parameters: set[str] = set()
    try:
        sql = _for_driver("\n".join(lines[1:]), parameters)
    except ValueError as error:
        raise ValueError(f"{source}: query {name}: {error}") from None
    sql = sql.strip().removesuffix(";").rstrip()
    if not sql:
        raise ValueError(f"{source}: query {name} has no SQL")
    prepared = _prepared(name, sql) if is_prepared else None
    return Query(name, comment, sql, frozenset(parameters), prepared)


def _for_driver(statement: str, parameters: set[str]) -> str:
    """Write `:name` as `%(name)s`, double each `%`, leave out comments."""

    def replace(token: re.Match[str]) -> str:
        kind = token.lastgroup
        if kind == "parameter":
            parameters.add(token["parameter"])
            return f"%({token['parameter']})s"
        if kind == "cast":
            raise ValueError("'::' is refused, write CAST(… AS …)")
        if kind == "unclosed":
            raise ValueError(f"{token[0]} is not closed")
        if token[0].startswith(("--", "/*")):
            return " "
        return token[0].replace("%", "%%")

    return _TOKEN.sub(replace, statement)


def _prepared(name: str, sql: str) -> Prepared:
    """Write `%(name)s` as `$1`; the server finds out the types."""
    numbers: dict[str, int] = {}

    def replace(token: re.Match[str]) -> str:
        if (parameter := token["parameter"]) is None:
            return "%"
        return f"${numbers.setdefault(parameter, len(numbers) + 1)}"

    statement = _DRIVER_TOKEN.sub(replace, sql)
    # Behind a pooler another version of this server may have prepared its own.
    digest = hashlib.sha256(statement.encode()).hexdigest()[:8]
    server_name = f"viva_{name}_{digest}"
    arguments = ", ".join(f"%({parameter})s" for parameter in numbers)
    return Prepared(
        server_name,
        f"PREPARE {server_name} AS {statement}",
        f"EXECUTE {server_name} ({arguments})",
    )
