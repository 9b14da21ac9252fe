"""The one place where the driver's exceptions become those of viva_server."""

from __future__ import annotations

import psycopg2

from viva_server.errors import (
    ConstraintError,
    RowError,
    StoreError,
    StoreLockedError,
    StoreRefusedError,
    StoreUnavailableError,
    TransientStoreError,
)

# PostgreSQL's appendix A: deadlock, serialization failure.
_UNDONE = frozenset({"40P01", "40001"})

_LOCK_NOT_AVAILABLE = "55P03"

# query_canceled by a time-out or an administrator; read_only_sql_transaction: the
# primary became a standby.
_UNAVAILABLE = frozenset({"57014", "25006"})

# Connection exception, insufficient resources, operator intervention, system error.
_UNAVAILABLE_CLASSES = frozenset({"08", "53", "57", "58"})

# Data exception, integrity constraint violation: the row itself is at fault.
_DATA_CLASSES = frozenset({"22", "23"})


def translate(error: BaseException, *, lost: bool) -> StoreError:
    """Return our exception for what the driver raised in a statement.

    Raise it `from None`: PostgreSQL quotes rows in its messages, and a cause is printed
    with every traceback. Neither its text nor its attributes have a value of a row.

    Args:
        error: what the driver raised.
        lost: whether the connection is gone, so that only the server knows whether
            the statement was committed.
    """
    ours = _translated(error, lost=lost)
    ours.sqlstate = sqlstate_of(error)
    return ours


def _translated(error: BaseException, *, lost: bool) -> StoreError:
    if lost or isinstance(error, TimeoutError):
        return StoreUnavailableError(
            f"the connection was lost in a statement ({type(error).__name__})",
            outcome_unknown=True,
        )
    code = sqlstate_of(error)
    what = f"{type(error).__name__} {code}".rstrip()
    if code.startswith("23") and isinstance(error, psycopg2.Error):
        return ConstraintError(_constraint(error))
    # ValueError: the driver itself cannot send the value.
    if code[:2] in _DATA_CLASSES or isinstance(error, ValueError):
        return RowError(f"a value cannot be stored ({what})")
    if code == _LOCK_NOT_AVAILABLE:
        return StoreLockedError(f"a lock was not to be had in time ({what})")
    if code in _UNDONE:
        return TransientStoreError(f"the database undid the statement ({what})")
    if code in _UNAVAILABLE or code[:2] in _UNAVAILABLE_CLASSES:
        return StoreUnavailableError(f"the database gave the statement up ({what})")
    return StoreRefusedError(f"the database refused the statement ({what})")


def is_farewell(error: BaseException) -> bool:
    """Tell whether the server has ended the connection, though it may look open.

    Its last words can arrive before the end of the connection does.
    """
    return sqlstate_of(error).startswith(("08", "57P"))


def is_of_standby(error: BaseException) -> bool:
    """Tell whether the server takes no writes: a former primary, to be left."""
    return sqlstate_of(error) == "25006"


def unreachable(error: BaseException) -> StoreUnavailableError:
    """Return our exception for a connection that could not be made.

    It has the server's own sentence, such as a refused password, and neither the DSN
    nor the password, which libpq does not put into that sentence.
    """
    if isinstance(error, TimeoutError):
        return StoreUnavailableError("PostgreSQL does not answer")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].rpartition("failed: ")[2]
    return StoreUnavailableError(f"PostgreSQL cannot be reached: {reason}")


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE, empty for what did not come from the server."""
    return getattr(error, "pgcode", None) or ""


def _constraint(error: psycopg2.Error) -> str:
    # NOT NULL has no name before PostgreSQL 18; its column says as much.
    diagnostics = error.diag
    return diagnostics.constraint_name or diagnostics.column_name or "unnamed"
