"""The named queries of sql/queries: read, checked and made ready for the driver."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

_NAME_LINE = re.compile(r"-- name: ([a-z][a-z0-9_]*)")
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


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with psycopg2's `%(name)s` parameters, and what it is for."""

    name: str
    comment: str
    sql: str
    parameters: frozenset[str]

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
    return [_parse_query(name, lines, source) for name, lines in _blocks(text, source)]


def _blocks(text: str, source: str) -> Iterator[tuple[str, list[str]]]:
    name: str | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _NAME_LINE.fullmatch(line):
            if name is not None:
                yield name, lines
            name, lines = match[1], []
        elif _LIKE_NAME_LINE.match(line):
            raise ValueError(f"{source}:{number}: write it as '-- name: some_name'")
        elif name is not None:
            lines.append(line)
        elif line.strip() and not line.startswith("-- "):
            raise ValueError(f"{source}:{number}: SQL before the first '-- name:'")
    if name is not None:
        yield name, lines


def _parse_query(name: str, lines: list[str], source: str) -> Query:
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
    return Query(name, comment, sql, frozenset(parameters))


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
