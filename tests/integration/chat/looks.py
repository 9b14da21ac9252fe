"""What the database has, read past the server."""

from __future__ import annotations

from typing import NamedTuple

from tests.postgres import run_sql


class Stored(NamedTuple):
    """A message as it stands in the table."""

    seq: int
    role: str
    content: str
    status: str
    finish_reason: str | None


def messages(dsn: str, session_id: str) -> list[Stored]:
    """Give the messages of a session in their order."""
    rows = run_sql(
        dsn,
        "SELECT seq, role, content, status, finish_reason FROM viva.messages"
        f" WHERE session_id = '{session_id}' ORDER BY seq",
    )
    return [Stored._make(row) for row in rows]


def message(dsn: str, message_id: str) -> Stored:
    """Give one message."""
    (row,) = run_sql(
        dsn,
        "SELECT seq, role, content, status, finish_reason FROM viva.messages"
        f" WHERE id = '{message_id}'",
    )
    return Stored._make(row)


def journal(dsn: str, message_id: str) -> list[tuple[int, str]]:
    """Give the rows of a live reply."""
    rows = run_sql(
        dsn,
        f"SELECT start, text FROM viva.journal WHERE message_id = '{message_id}'"
        " ORDER BY start",
    )
    return [(start, text) for start, text in rows]


def count(dsn: str, table: str) -> int:
    """Count the rows of a table."""
    ((number,),) = run_sql(dsn, f"SELECT count(*) FROM viva.{table}")
    return int(number)


def waits_for_a_lock(dsn: str, word: str) -> bool:
    """Tell whether a statement with that word is waiting for a lock."""
    return bool(
        run_sql(
            dsn,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            f" AND wait_event_type = 'Lock' AND query LIKE '%{word}%'",
        )
    )


def slow_inserts(dsn: str, table: str, seconds: float) -> None:
    """Let every insert take a while between its look and its row."""
    run_sql(
        dsn,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN new; END $$;"
        f"CREATE TRIGGER dawdle BEFORE INSERT ON viva.{table}"
        " FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
