"""SQLAlchemy Core as a compiler: statements become text for the driver.

It is loaded with the first such statement: it would be a fourth of what each command
imports, and the server's own statements are all in sql/queries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import psycopg2 as psycopg2_dialect
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

_Processor = Callable[[Any], Any]


class CompiledStatement:
    """A compiled statement; binding it again costs a few microseconds."""

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        if not isinstance(statement, ClauseElement):
            raise TypeError("only a statement of SQLAlchemy Core can be compiled")
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("DDL belongs into sql/migrations")
        if compiled.post_compile_params:
            raise TypeError("an IN with a list is compiled for one list: use = ANY(…)")
        self.sql = str(compiled)
        self._compiled = compiled
        self._processors: dict[str, _Processor] = {}
        for parameter, name in compiled.bind_names.items():
            kind = parameter.type.dialect_impl(dialect)
            if (processor := kind.bind_processor(dialect)) is not None:
                self._processors[name] = processor

    def bind(self, parameters: Mapping[str, object]) -> dict[str, Any]:
        """Return the statement's own values and the given ones, as the driver's."""
        values = dict(self._compiled.construct_params(dict(parameters)))
        for name, processor in self._processors.items():
            values[name] = processor(values[name])
        return values


_compiled: WeakKeyDictionary[Executable, CompiledStatement] = WeakKeyDictionary()


def compiled_once(statement: Executable) -> CompiledStatement:
    """Compile a statement object once, for as long as its owner keeps it."""
    if (compiled := _compiled.get(statement)) is None:
        compiled = _compiled[statement] = CompiledStatement(statement, _dialect())
    return compiled


@functools.cache
def _dialect() -> Dialect:
    return psycopg2_dialect.dialect()  # type: ignore[no-untyped-call] # theirs
