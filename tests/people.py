"""People with something stored, and what a dump of the database still says of them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from tests.postgres import run_sql
from viva_server.store.driver.database import Database
from viva_server.store.embedded.programs import find_programs
from viva_server.store.erasure import Erasure
from viva_server.store.people import Subject, with_addresses
from viva_server.values import new_id
from viva_server.whatsapp.conversation.outbox import Send
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.inbox import Inbox

PHONE = "5511988887777"
LID = "103899771998284"
TABLES = ("sessions", "messages", "journal", "live_replies", "idempotency_keys")


def add_sessions(
    url: str,
    person: str,
    *,
    channel: str = "web",
    sessions: int = 1,
    messages: int = 2,
    text: str = "olá",
    idle_days: float = 0,
) -> list[str]:
    """Store sessions whose messages say `text` and their seq; each has a key."""
    rows = run_sql(
        url,
        f"""
        WITH made AS (
            INSERT INTO viva.sessions
                (id, channel, person, title, message_count, updated_at)
            SELECT
                gen_random_uuid(), '{channel}', '{person}', '{text}', {messages},
                now() - {idle_days} * interval '1 day'
            FROM generate_series(1, {sessions}) RETURNING id
        ), said AS (
            INSERT INTO viva.messages (session_id, seq, id, role, content, meta, status)
            SELECT
                id, n, gen_random_uuid(),
                CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
                '{text} ' || n, '{{"contexto_len": 3}}', 'complete'
            FROM made, generate_series(1, {messages}) AS n RETURNING id, session_id, seq
        )
        SELECT CAST(id AS text) FROM made
        """,
    )
    ids = [row[0] for row in rows]
    run_sql(
        url,
        "INSERT INTO viva.idempotency_keys (channel, person, key, body_sha256,"
        f" message_id) SELECT '{channel}', '{person}', 'key ' || m.id, '', m.id"
        f" FROM viva.messages AS m WHERE m.seq = 2 AND m.session_id = ANY({_ids(ids)})",
    )
    return ids


def add_replaced(url: str, session_id: str, text: str, replies: int = 1) -> None:
    """Store replies that the session's second message has replaced."""
    run_sql(
        url,
        f"""
        INSERT INTO viva.messages
            (session_id, seq, id, role, content, meta, status, replaced_seq)
        SELECT
            m.session_id, -n, gen_random_uuid(), m.role, '{text} ' || n,
            jsonb_build_object('replaced_by', m.id), 'partial', m.seq
        FROM viva.messages AS m, generate_series(1, {replies}) AS n
        WHERE m.session_id = '{session_id}' AND m.seq = 2
        """,
    )


def add_live_reply(url: str, person: str, session_id: str, text: str) -> str:
    """Add a live reply of a process that does nothing more; give its id."""
    owner, message_id = new_id(), new_id()
    run_sql(
        url,
        f"""
        INSERT INTO viva.processes (id, lock_key) VALUES ('{owner}', 77);
        UPDATE viva.sessions SET message_count = message_count + 1
        WHERE id = '{session_id}';
        INSERT INTO viva.messages (session_id, seq, id, role, content, status)
        SELECT id, message_count, '{message_id}', 'assistant', '', 'streaming'
        FROM viva.sessions WHERE id = '{session_id}';
        INSERT INTO viva.live_replies (message_id, session_id, channel, person, owner)
        VALUES ('{message_id}', '{session_id}', 'web', '{person}', '{owner}');
        INSERT INTO viva.journal (message_id, start, text)
        VALUES ('{message_id}', 0, '{text}');
        """,
    )
    return message_id


def add_turns(url: str, text: str, *, state: str = "answered") -> None:
    """Give each message that waits a turn of its own, which sent `text`."""
    run_sql(
        url,
        f"""
        UPDATE viva.whatsapp_chats SET due_at = NULL;
        WITH made AS (
            INSERT INTO viva.whatsapp_turns
                (id, instance, jid, user_message_id, state, ended_at)
            SELECT
                inbox_id, instance, jid, gen_random_uuid(), '{state}',
                CASE WHEN '{state}' <> 'running' THEN now() END
            FROM viva.whatsapp_messages WHERE turn_id IS NULL AND why_not IS NULL
            RETURNING id, instance, jid
        ), said AS (
            INSERT INTO viva.outbox (id, turn_id, instance, jid, text, state)
            SELECT gen_random_uuid(), id, instance, jid, '{text}', 'sent'
            FROM made WHERE '{state}' = 'answered'
        )
        SELECT count(*) FROM made
        """,
    )
    run_sql(
        url,
        "UPDATE viva.whatsapp_messages AS m SET turn_id = t.id"
        " FROM viva.whatsapp_turns AS t WHERE t.id = m.inbox_id",
    )


def add_process(url: str) -> str:
    """Add a process that is alive for the next hour; give its id."""
    process_id = new_id()
    run_sql(
        url,
        f"INSERT INTO viva.processes (id, lock_key) VALUES ('{process_id}', 78)",
    )
    return process_id


async def begin_send(database: Database, url: str, text: str) -> tuple[str, Send]:
    """Let a living process send the answer `text` to the message that waits."""
    add_turns(url, text)
    run_sql(url, "UPDATE viva.outbox SET state = 'waiting'")
    owner = add_process(url)
    [row] = await database.fetch("claim_sends", owner=owner, sends=1)
    return owner, Send._make(row)


async def finish_send(
    database: Database, owner: str, send: Send, **told: object
) -> None:
    """Write what became of a send, as its owner."""
    fields = {"error": None, "message_id": None, "due_seconds": 0.0, **told}
    await database.fetch("finish_send", owner=owner, outbox_id=send.id, **fields)


def written(
    text: str, *, number: int | str = 1, chat: str = f"{PHONE}@s.whatsapp.net",
    instance: str = "loja", **key: str,
) -> Delivery:  # fmt: skip
    """Make the delivery of a message that somebody wrote."""
    data = {
        "key": {"remoteJid": chat, "fromMe": False, "id": f"M{number}", **key},
        "message": {"conversation": text},
    }
    return webhook("messages.upsert", data, instance)


def webhook(event: str, data: object, instance: str = "loja") -> Delivery:
    """Make the delivery of an event."""
    body = {"event": event, "instance": instance, "data": data}
    return make_delivery("", "", {}, body, trusted=True)


async def receive(database: Database, deliveries: Sequence[Delivery]) -> list[bool]:
    """Deliver to the inbox; tell of each whether it was new."""
    inbox = Inbox(database)
    try:
        return [await inbox.add(delivery) for delivery in deliveries]
    finally:
        await inbox.close()


def count(url: str, table: str, where: str = "TRUE") -> int:
    """Count rows."""
    [[number]] = run_sql(url, f"SELECT count(*) FROM viva.{table} WHERE {where}")
    return int(number)


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL."""
    return run_sql(url, sql)


def dump(url: str) -> str:
    """Dump the whole database as text."""
    program = find_programs(None) / "pg_dump"
    result = subprocess.run(
        [program, "--dbname", url], capture_output=True, text=True, check=True
    )
    return result.stdout


async def erase(database: Database, subject: Subject) -> dict[str, int]:
    """Erase a person under all known addresses; give how much it was."""
    whole = await with_addresses(database, subject)
    erasure = Erasure(database, whole, advance=lambda _: None)
    await erasure.run()
    return erasure.counts


def _ids(ids: Sequence[str]) -> str:
    return "CAST('{" + ",".join(ids) + "}' AS uuid[])"
