"""One connection through aiopg, with aiopg's rough edges taken off."""

from __future__ import annotations

import asyncio
import functools
import os
import time
import warnings
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, QueryCanceledError

from viva_server.errors import StoreError, StoreUnavailableError
from viva_server.store.driver.address import Parameters, resolve
from viva_server.store.driver.failures import (
    is_farewell,
    is_of_standby,
    translate,
    unreachable,
)
from viva_server.store.driver.queries import Prepared, find_query

with warnings.catch_warnings():  # importing aiopg changes the filters of its host
    import aiopg
    import aiopg.connection

_LOCK_SECONDS = 2.0

_INVALID_STATEMENT_NAME = "26000"
_DUPLICATE_PREPARED_STATEMENT = "42P05"
_IDLE_IN_TRANSACTION_SECONDS = 10.0
_CLIENT_CHECK_SECONDS = 2.0

# The server outlives our own time-out by this, so that it is ours that is seen, and
# ends by itself what a closed connection left running.
_SERVER_MARGIN_SECONDS = 1.0

# A peer that vanished without a word is noticed after about 20 s at rest and 10 s
# with data on the way; libpq ignores these on a unix socket. A DSN may say otherwise.
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


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


class _DescriptorProbe:
    """What aiopg needs of `select` when a statement fails, for any socket number.

    aiopg asks select.select() whether libpq has closed the socket, and then forgets
    the reader that it had registered, but not the writer. select() takes no number
    above 1023: every SQL error of such a connection hung until its time-out. The
    forgotten writer made the next connection with that number fail under uvloop.
    """

    @staticmethod
    def select(readers: Sequence[int], *_: object) -> tuple[list[int], ...]:
        """Raise OSError (EBADF) if the one descriptor is closed."""
        try:
            os.fstat(readers[0])
        except OSError:
            asyncio.get_running_loop().remove_writer(readers[0])
            raise
        return [], [], []


def mend_driver() -> None:
    """Replace the name `select` in aiopg.connection; the module select stays."""
    vars(aiopg.connection)["select"] = _DescriptorProbe


class Link:
    """A connection and its one cursor: one statement at a time.

    Who makes a link closes it.
    """

    def __init__(
        self, connection: aiopg.Connection, cursor: aiopg.Cursor, query_seconds: float
    ) -> None:
        self._connection = connection
        # One cursor for all statements: making one costs half as much as a statement.
        self._cursor = cursor
        self.query_seconds = query_seconds
        self._prepared: set[str] = set()
        self._prepares = True

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be closed, by whichever side."""
        return bool(self._connection.closed)

    @property
    def at_rest(self) -> bool:
        """Whether the link is open and in no transaction: fit for anybody."""
        raw = self._connection.raw
        status = raw.get_transaction_status()
        return not raw.closed and bool(status == TRANSACTION_STATUS_IDLE)

    def still_open(self) -> bool:
        """Read what the server may have sent to the link at rest; False: it left.

        This finds a restart that the event loop has not come round to see.
        """
        raw = self._connection.raw
        try:
            raw.poll()  # takes the server's last words
            raw.poll()  # finds the end of the connection behind them
        except psycopg2.Error:
            self.close()
        return not raw.closed

    def close(self) -> None:
        """Close the connection at once; a statement on its way ends with an error."""
        _close(self._connection)

    async def run(
        self,
        sql: str,
        parameters: Mapping[str, object] | None,
        prepared: Prepared | None = None,
    ) -> Result:
        """Run a statement to its end; cancelling closes the connection.

        With None for the parameters `%` needs no doubling. What is `prepared` runs as
        such unless a pooler takes a statement to another session than the last one.

        Raises:
            StoreError: or one of its kinds, see viva_server.store.driver.failures.
        """
        if prepared is not None and await self._has_prepared(prepared):
            try:
                return await self._run(prepared.execute, parameters)
            except StoreError as error:
                # It has done nothing then.
                if error.sqlstate != _INVALID_STATEMENT_NAME:
                    raise
                self._prepares = False
        return await self._run(sql, parameters)

    async def _has_prepared(self, prepared: Prepared) -> bool:
        if self._prepares and prepared.name not in self._prepared:
            try:
                await self._run(prepared.prepare, None)
            except StoreError as error:
                if error.sqlstate != _DUPLICATE_PREPARED_STATEMENT:
                    raise
                self._prepares = False
            else:
                self._prepared.add(prepared.name)
        return self._prepares

    async def _run(self, sql: str, parameters: Mapping[str, object] | None) -> Result:
        cancellations = _cancellations()
        try:
            await self._cursor.execute(sql, parameters, timeout=self.query_seconds)
            _raise_swallowed(cancellations)
            return read_result(self._cursor.raw)
        except asyncio.CancelledError as error:
            # aiopg turns a statement that the server cancelled into this as well.
            reason = error.__context__
            if not isinstance(reason, QueryCanceledError) or _cancellations():
                raise
            raise translate(reason, lost=False) from None
        except (psycopg2.Error, TimeoutError, ValueError) as error:
            lost = self.lost or is_farewell(error)
            if lost or is_of_standby(error):
                self.close()
            raise translate(error, lost=lost) from None


async def connect(
    parameters: Parameters, *, connect_seconds: float, query_seconds: float
) -> Link:
    """Connect to the first address that answers, each within its share of the time.

    Raises:
        StoreUnavailableError: none does.
    """
    mend_driver()
    deadline = time.monotonic() + connect_seconds
    # TCP gives up no sooner than who waits for the answer.
    patience = max(int(_KEEPALIVE["tcp_user_timeout"]), int(query_seconds * 1000))
    keepalive = {**_KEEPALIVE, "tcp_user_timeout": str(patience)}
    try:
        async with asyncio.timeout(connect_seconds):
            targets = await resolve({**keepalive, **parameters})
    except TimeoutError as error:
        raise StoreUnavailableError("the database's name is not resolved") from error
    failure = StoreUnavailableError()
    for tried, target in enumerate(targets):
        share = (deadline - time.monotonic()) / (len(targets) - tried)
        try:
            return await _connect_to(target, max(share, 0.01), query_seconds)
        except StoreUnavailableError as error:
            failure = error
    raise failure


async def _connect_to(target: Parameters, seconds: float, query_seconds: float) -> Link:
    arguments: dict[str, Any] = {
        **target,
        "client_encoding": "UTF8",
        "timeout": seconds,
        "enable_hstore": False,  # a query per connection
        "enable_json": False,  # psycopg2 reads json and jsonb without it
        "enable_uuid": False,  # ids are text
    }
    cancellations = _cancellations()
    try:
        connection = await aiopg.connect(**arguments)
    # RuntimeError: uvloop, when another user of aiopg left a stale handle behind.
    except (psycopg2.Error, OSError, TimeoutError, RuntimeError) as error:
        raise unreachable(error) from error
    try:
        _raise_swallowed(cancellations)
        link = Link(connection, await connection.cursor(), seconds)
        await _prepare(link, query_seconds)
        link.query_seconds = query_seconds
    except BaseException as error:
        _close(connection)
        # psycopg2's own: the server closed the connection as soon as it was made.
        if isinstance(error, StoreError | psycopg2.Error):
            raise unreachable(error) from None
        raise
    return link


def _close(connection: aiopg.Connection) -> None:
    # 1: aiopg has closed it before, and the socket's number may be another's now, which
    # would not hear of its answers any more;
    # 2: libpq found it broken, which aiopg may not know yet.
    if connection.raw.closed != 1:
        connection.close()


async def _prepare(link: Link, query_seconds: float) -> None:
    seconds = {
        "statement_timeout_ms": query_seconds + _SERVER_MARGIN_SECONDS,
        "lock_timeout_ms": min(_LOCK_SECONDS, query_seconds),
        "idle_in_transaction_ms": _IDLE_IN_TRANSACTION_SECONDS,
        "client_check_ms": _CLIENT_CHECK_SECONDS,
    }
    query = find_query("prepare_connection")
    await link.run(query.sql, {name: int(s * 1000) for name, s in seconds.items()})


def _cancellations() -> int:
    """Give how often the running task has been asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _raise_swallowed(cancellations: int) -> None:
    """Raise CancelledError if the task was cancelled since `_cancellations()`.

    aiopg waits with `asyncio.wait_for`, which before Python 3.12 gives its result and
    forgets the cancellation when both come in the same turn of the loop
    (python/cpython#86296): the task would go on for ever.
    """
    if _cancellations() > cancellations:
        raise asyncio.CancelledError
