"""A database as it is after years, made in seconds: for the plans of the queries."""

from __future__ import annotations

from uuid import UUID

from tests.postgres import run_sql

OWNER = str(UUID(int=1))
BIG, SMALL = str(UUID(int=2)), str(UUID(int=3))
"""A session of a million messages, and one of a hundred, of "ana"."""

LIVE_REPLIES = 2000
ANAS_SESSIONS = 100_000


def live_reply(number: int) -> str:
    """Give the id of a live reply, 1 … LIVE_REPLIES."""
    return str(UUID(int=(8 << 124) + number))


# Written without the checks of foreign keys, and without a look by autovacuum.
_SQL = f"""
SET session_replication_role = replica;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'viva' LOOP
        EXECUTE format('ALTER TABLE viva.%I SET (autovacuum_enabled = off)', name);
    END LOOP;
END $$;
-- As UUIDv7 are: one after the other.
CREATE FUNCTION pg_temp.id(kind integer, n integer) RETURNS uuid LANGUAGE sql AS
$$ SELECT CAST(to_hex(kind) || lpad(to_hex(n), 31, '0') AS uuid) $$;
INSERT INTO viva.processes (id, lock_key) VALUES ('{OWNER}', 1);
INSERT INTO viva.sessions (id, channel, person, message_count, updated_at)
SELECT pg_temp.id(10, n), 'web', 'ana', 2, now() - n * interval '1 minute'
FROM generate_series(1, {ANAS_SESSIONS}) AS n
UNION ALL
SELECT pg_temp.id(11, n), 'web', 'person ' || n % 1000, 2, now() - n * interval '1 s'
FROM generate_series(1, {ANAS_SESSIONS}) AS n;
INSERT INTO viva.sessions (id, channel, person, message_count)
VALUES ('{BIG}', 'web', 'ana', 1000000), ('{SMALL}', 'web', 'ana', 100);
INSERT INTO viva.messages (session_id, seq, id, role, content, status)
SELECT
    s.id, n, pg_temp.id(CASE s.id WHEN '{BIG}' THEN 12 ELSE 13 END, n),
    CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
    'Mensagem ' || n, 'complete'
FROM viva.sessions AS s, generate_series(1, s.message_count) AS n
WHERE s.id IN ('{BIG}', '{SMALL}');

CREATE TEMPORARY TABLE live ON COMMIT DROP AS
SELECT n, pg_temp.id(9, n) AS session_id, pg_temp.id(8, n) AS message_id
FROM generate_series(1, {LIVE_REPLIES}) AS n;
INSERT INTO viva.sessions (id, channel, person, message_count)
SELECT session_id, 'web', 'reader ' || n, 2 FROM live;
INSERT INTO viva.messages (session_id, seq, id, role, content, status)
SELECT session_id, 1, pg_temp.id(14, n), 'user', 'Olá', 'complete' FROM live
UNION ALL
SELECT session_id, 2, message_id, 'assistant', '', 'streaming' FROM live;
INSERT INTO viva.live_replies (message_id, session_id, channel, person, owner, left_at)
SELECT
    message_id, session_id, 'web', 'reader ' || n,
    '{OWNER}', CASE n % 10 WHEN 0 THEN now() END
FROM live;
INSERT INTO viva.far_readers (message_id, process_id)
SELECT message_id, pg_temp.id(1, 2) FROM live WHERE n % 10 = 0;
INSERT INTO viva.journal (message_id, start, text)
SELECT message_id, part * 5, 'abcde' FROM live, generate_series(0, 99) AS part;
INSERT INTO viva.idempotency_keys (channel, person, key, body_sha256, message_id)
SELECT 'web', 'ana', 'key ' || n, '', pg_temp.id(12, n)
FROM generate_series(1, 100000) AS n;
INSERT INTO viva.inbox (
    id, dedupe_key, instance, event, is_known, kind, answer, trusted, chat,
    message_id, tail, headers, form, body
)
SELECT
    pg_temp.id(1, n), sha256(CAST('event ' || n AS bytea)), 'viva',
    'messages.upsert', true, 'message', true, true, 'chat ' || n % 1000, 'id ' || n,
    '', '{{}}', '{{}}', '{{}}'
FROM generate_series(1, 100000) AS n;
INSERT INTO viva.whatsapp_lids (instance, lid, jid)
SELECT 'viva', 'lid ' || n, 'chat ' || n FROM generate_series(0, 999) AS n;
INSERT INTO viva.whatsapp_chats (instance, jid, due_at, owner)
SELECT
    'viva', 'chat ' || n,
    CASE WHEN n < 20 THEN now() - n * interval '1 s' END,
    CASE WHEN n = 500 THEN CAST('{OWNER}' AS uuid) END
FROM generate_series(0, 999) AS n;
INSERT INTO viva.whatsapp_turns (
    id, instance, jid, user_message_id, reply_id, runs, state, ended_at
)
SELECT
    pg_temp.id(2, n), 'viva', 'chat ' || n % 1000, pg_temp.id(3, n),
    pg_temp.id(4, n), 1, 'answered', now() - n * interval '1 minute'
FROM generate_series(1, 100000) AS n;
INSERT INTO viva.whatsapp_messages (
    instance, message_id, jid, inbox_id, kind, text, sent_at, turn_id
)
SELECT
    'viva', 'id ' || n, 'chat ' || n % 1000, pg_temp.id(1, n), 'text', 'oi',
    now() - n * interval '1 minute', CASE WHEN n > 20 THEN pg_temp.id(2, n) END
FROM generate_series(1, 100000) AS n;
INSERT INTO viva.outbox (id, turn_id, instance, jid, text, state, message_id)
SELECT
    pg_temp.id(5, n), pg_temp.id(2, n), 'viva', 'chat ' || n % 1000, 'oi',
    CASE WHEN n <= 20 THEN 'waiting' ELSE 'sent' END,
    CASE WHEN n > 20 THEN 'sent ' || n END
FROM generate_series(1, 100000) AS n;
"""


def fill(dsn: str) -> None:
    """Fill a database that has the schema; nothing is analyzed."""
    run_sql(dsn, f"BEGIN; {_SQL} COMMIT")
