"""Every exception of viva_server, below one root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


class VivaError(Exception):
    """Something went wrong in viva_server."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class ConfigError(VivaError):
    """The settings cannot be used.

    `problems` names all of them, one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class AuthError(VivaError):
    """The request does not prove who it comes from.

    A host's `authenticate` raises it; the client gets 401. The message is never shown.
    """


class StoreError(VivaError):
    """The database did not do what it was asked.

    `sqlstate` is PostgreSQL's code, empty where the server said none. No text of the
    server is kept: it quotes rows.
    """

    sqlstate = ""


class StoreUnavailableError(StoreError):
    """The database cannot do this now, whatever the rows are: wait, and repeat it.

    With `outcome_unknown` the statement may have been committed: read back by key
    before you answer, or repeat it if it is idempotent.
    """

    def __init__(
        self, message: str | None = None, *, outcome_unknown: bool = False
    ) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class StoreRefusedError(StoreUnavailableError):
    """The server refused the statement, for a missing right or anything not foreseen.

    Nothing of it is stored. Other rows may be taken: repeat a batch row by row.
    """


class PoolFullError(StoreUnavailableError):
    """No connection of the pool was free in time; the database may be well."""


class TransientStoreError(StoreError):
    """The database undid the statement (deadlock, serialization).

    Nothing of it is stored; the whole transaction may be repeated.
    """


class StoreLockedError(TransientStoreError):
    """Somebody else held a lock for too long; nothing of the statement is stored."""


class RowError(StoreError):
    """A value cannot be stored, whenever it is tried; nothing of the row is stored."""


class ConstraintError(RowError):
    """A constraint of the schema refused the row; nothing of it is stored."""

    def __init__(self, constraint: str) -> None:
        super().__init__(f"constraint {constraint}")
        self.constraint = constraint


class ClocksDifferError(StoreError):
    """The database's clock and this machine's differ: no age can be told."""


class SchemaError(StoreError):
    """The schema in the database is not the one that this version needs."""


class EmbeddedPostgresError(VivaError):
    """The embedded PostgreSQL cannot be started."""


class FencedError(VivaError):
    """Another process has declared this one dead; it must write nothing more."""


class NotFoundError(VivaError):
    """The person has no such session or message; `kind` says which."""

    def __init__(self, kind: Literal["session", "message"]) -> None:
        super().__init__(f"no such {kind}")
        self.kind = kind


class ReplyInProgressError(VivaError):
    """Somebody reads the live reply of the session."""

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id


class NotNewestError(VivaError):
    """The reply is not the newest of its session, so it cannot be replaced."""


class KeyReusedError(VivaError):
    """The Idempotency-Key belongs to another body."""


class TooManyRepliesError(VivaError):
    """The person has too many live replies."""


class OverloadedError(VivaError):
    """The server cannot take new work now; the same request may succeed soon."""


class ReplyPendingError(VivaError):
    """A message may be stored though nobody can say so now: do not send it again.

    `message_id` is its reply's, if there is one within 30 s.
    """

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id


class StoppingError(OverloadedError):
    """The server is stopping and takes no new work."""


class ResponderError(VivaError):
    """The model gave no reply, or not a whole one.

    `code` is a word for programs (`upstream_timeout`, `upstream_unavailable` …);
    `retryable` says whether the same request may succeed later. `detail` is for the
    log and `doctor`, never for a client: what the model's server says of it.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        retryable: bool = True,
        detail: str = "",
    ) -> None:
        super().__init__(message or code)
        self.code = code
        self.retryable = retryable
        self.detail = detail


class RefusedError(ResponderError):
    """The model's server refuses the request; the same one will not succeed.

    `status` is that of its answer: with 400 a shorter conversation may do.
    """

    def __init__(self, status: int, detail: str = "") -> None:
        message = f"the model's server answered HTTP {status}"
        super().__init__("upstream_refused", message, retryable=False, detail=detail)
        self.status = status


class EvolutionError(VivaError):
    """Evolution API did not do what it was asked.

    `reason` is a short word (`no_connection`, `timeout`, `unauthorized` …), never a
    text of the other side. With `outcome_unknown` it may have done it all the same.
    """

    def __init__(self, reason: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(f"Evolution API: {reason}")
        self.reason = reason
        self.outcome_unknown = outcome_unknown


class SseDecodeError(VivaError):
    """A stream of server-sent events breaks a limit of the decoder."""
