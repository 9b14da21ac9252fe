"""What `viva-server doctor` checks of a database, and what a check gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from viva_server.store.driver.database import Database, ServerFacts
from viva_server.store.health import CLOCK_SECONDS
from viva_server.store.migrate import SchemaState, schema_state

CONNECTIONS_OF_A_PROCESS = 16
"""The pool of ten, the journal, the heartbeat and its next, the probe, a purge, a
migration."""

_CLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `viva-server doctor`; `detail` never holds a secret.

    With `warn` something is worth a look and nothing is broken.
    """

    name: str
    ok: bool
    detail: str
    warn: bool = False


async def check_database(database: Database, *, migrates: bool) -> list[Check]:
    """Check an open database; `migrates` says that a server brings the schema up.

    Raises:
        StoreError: or one of its kinds: it went away.
    """
    facts = ServerFacts(*(await database.fetch("server_facts"))[0])
    checks = [_server(facts), _durability(facts)]
    if not checks[0].ok:
        return checks
    state = await schema_state(database)
    checks += [_schema(state, migrates=migrates), await _pooler(database)]
    return [*checks, *await _settings(database)]


def _server(facts: ServerFacts) -> Check:
    problems = facts.problems()
    version = f"PostgreSQL {facts.version // 10_000}.{facts.version % 10_000}"
    detail = "; ".join(problems) or f"{version}, {facts.encoding}"
    return Check("database", not problems, detail)


def _durability(facts: ServerFacts) -> Check:
    """Judge what a committed reply rests on; our connections ask for `on` at least."""
    commit = facts.synchronous_commit
    problems = []
    if not facts.fsync:
        problems.append("fsync is off: a crash of the machine damages the database")
    if commit not in {"on", "remote_apply"}:
        problems.append(f"synchronous_commit stays {commit} on our connections")
    detail = "; ".join(problems) or f"fsync on, synchronous_commit {commit} for us"
    return Check("durability", not problems, detail)


def _schema(state: SchemaState, *, migrates: bool) -> Check:
    names = ", ".join(state.names)
    match state.word:
        case "current":
            return Check("schema", True, "is that of this version")
        case "behind" if migrates:
            detail = f"misses {names}: serve applies it at its start"
            return Check("schema", True, detail, warn=True)
        case "behind":
            return Check("schema", False, f"misses {names}: run viva-server migrate")
        case "ahead":
            return Check("schema", False, f"is of a newer viva_server, with {names}")
        case "altered":
            return Check("schema", False, f"has another content of {names}")


async def _pooler(database: Database) -> Check:
    """Look whether a connection stays with one process of the server, its own.

    A pooler in transaction mode takes the process away after each transaction, and
    session locks with it: a killed server is found after 17 s instead of 2.
    """
    first, second = await database.connect(), await database.connect()
    try:
        pids = [
            (await connection.fetch("backend"))[0].pid
            for connection in (first, second, first, second)
        ]
    finally:
        await first.close()
        await second.close()
    is_own = pids[:2] == pids[2:] and pids[0] != pids[1]
    if is_own:
        return Check("pooler", True, "none that takes session locks away")
    detail = (
        "a pooler in transaction mode is in between, so that a killed server is found "
        "after 17 s instead of 2: connect past it, or use session mode"
    )
    return Check("pooler", False, detail)


async def _settings(database: Database) -> list[Check]:
    before = datetime.now(UTC)
    [row] = await database.fetch("server_settings")
    after = datetime.now(UTC)
    pages = "on" if row.full_page_writes else "off: a crash may tear pages"
    return [
        Check("full_page_writes", row.full_page_writes, pages),
        _connections(row.max_connections, row.connections),
        _clock((row.now - (before + (after - before) / 2)).total_seconds()),
    ]


def _connections(most: int, used: int) -> Check:
    detail = (
        f"{most - used} of {most} are free; a process uses up to "
        f"{CONNECTIONS_OF_A_PROCESS}"
    )
    is_enough = most >= CONNECTIONS_OF_A_PROCESS
    is_tight = most - used < CONNECTIONS_OF_A_PROCESS
    return Check("connections", is_enough, detail, warn=is_tight)


def _clock(seconds: float) -> Check:
    """Judge the difference; tokens are judged by this clock, all else by the other."""
    detail = f"{abs(seconds):.1f} s from the database's"
    is_near = abs(seconds) <= CLOCK_SECONDS
    return Check("clock", is_near, detail, warn=abs(seconds) > _CLOCK_SECONDS)
