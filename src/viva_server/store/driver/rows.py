"""Rows as named tuples, of classes that are made once per set of columns."""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:

    class Row(tuple[Any, ...]):
        """A row; each column is an attribute as well."""

        __slots__ = ()

        def __getattr__(self, name: str) -> Any: ...

else:
    Row = tuple


class Result(NamedTuple):
    """What a statement gave back."""

    rows: list[Row]
    rowcount: int
    tag: str  # the server's word for what it did, such as "INSERT 0 1" or "ROLLBACK"


def read_result(cursor: Any) -> Result:
    """Take everything out of a psycopg2 cursor whose statement is done."""
    rows: list[Row] = []
    if (description := cursor.description) is not None:
        make = _row_class(tuple([column.name for column in description]))._make
        rows = [make(values) for values in cursor.fetchall()]
    return Result(rows, cursor.rowcount, cursor.statusmessage or "")


@functools.lru_cache(maxsize=512)
def _row_class(columns: tuple[str, ...]) -> Any:
    return namedtuple("Row", columns, rename=True)  # noqa: PYI024 - columns vary
