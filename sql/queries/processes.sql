-- Who is alive, and the fence.

-- name: add_process
-- Register this process as an owner and take its lock, both or neither. It may be
-- repeated on another connection, until its answer has come.
INSERT INTO viva.processes AS p (id, lock_key, version, host, pid)
SELECT
    CAST(:process_id AS uuid),
    :lock_key,
    :version,
    :host,
    :pid
WHERE pg_try_advisory_lock(:lock_key)
ON CONFLICT ON CONSTRAINT processes_pkey
DO UPDATE SET lock_key = excluded.lock_key, beats = p.beats + 1
WHERE p.dead_at IS NULL
RETURNING p.id;

-- name: take_process_lock
-- Hold the lock that says "alive" on this connection and tell its key, both or neither.
-- No row means that this process has been declared dead.
UPDATE viva.processes
SET lock_key = :lock_key, beats = beats + 1, beat_at = clock_timestamp()
WHERE
    id = CAST(:process_id AS uuid)
    AND dead_at IS NULL
    AND pg_try_advisory_lock(:lock_key)
RETURNING id;

-- name: beat
-- Heartbeat; no row means that another process has declared this one dead.
UPDATE viva.processes
SET
    beats = beats + 1,
    beat_at = clock_timestamp(),
    readers = :readers,
    lock_key = CASE WHEN :keeps_key THEN lock_key END
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NULL
RETURNING id;

-- name: look_at_processes
-- The living: their heartbeats, and whether their locks are held. It takes no lock.
WITH held AS MATERIALIZED (
    SELECT (CAST(l.classid AS bigint) << 32) | CAST(l.objid AS bigint) AS lock_key
    FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
)

SELECT
    p.id,
    p.beats || '/' || extract(EPOCH FROM p.beat_at) AS value,
    CASE
        WHEN p.lock_key IS NOT NULL
            THEN EXISTS (SELECT FROM held AS h WHERE h.lock_key = p.lock_key)
    END AS is_locked,
    pg_backend_pid() AS backend,
    pg_postmaster_start_time() AS server_started_at
FROM viva.processes AS p
WHERE p.dead_at IS NULL;

-- name: load_death
-- Who declared a process dead, and how; the version before leaves that out.
SELECT dead_by AS by, verdict AS kind
FROM viva.processes
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NOT NULL;

-- name: remove_process
-- Leave in order: nothing is owned any more.
DELETE FROM viva.processes AS p
WHERE
    p.id = CAST(:process_id AS uuid)
    AND NOT EXISTS (SELECT FROM viva.live_replies AS l WHERE l.owner = p.id)
    AND NOT EXISTS (SELECT FROM viva.whatsapp_chats AS c WHERE c.owner = p.id)
    AND NOT EXISTS (SELECT FROM viva.outbox AS o WHERE o.owner = p.id);

-- name: load_living
-- The ids of all that are not declared dead.
SELECT id FROM viva.processes WHERE dead_at IS NULL;

-- name: lock_judge
-- Be alive until the end of the transaction, or give up: somebody declares us dead.
SELECT id
FROM viva.processes
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NULL
FOR KEY SHARE SKIP LOCKED;

-- name: lock_process
-- Wait for nobody: an owner with a statement under way is looked at again later.
SELECT id
FROM viva.processes
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NULL
FOR UPDATE SKIP LOCKED;

-- name: declare_dead
-- Find the heartbeat as it was when it was judged and, if fast, take the free lock.
UPDATE viva.processes
SET
    dead_at = clock_timestamp(),
    dead_by = CAST(:judge_id AS uuid),
    verdict = :verdict
WHERE
    id = CAST(:process_id AS uuid)
    AND dead_at IS NULL
    AND (
        :verdict = 'found'
        OR (
            beats || '/' || extract(EPOCH FROM beat_at) = :value
            AND (:verdict = 'slow' OR pg_try_advisory_xact_lock(lock_key))
        )
    )
RETURNING id;

-- name: close_from_journal
-- Close replies of an owner with the text that was committed for them, which is read
-- once: inlined, it would be read again for each of its three uses below.
WITH texts AS MATERIALIZED (
    SELECT l.message_id, l.session_id, viva.journal_text(l.message_id, 0) AS text
    FROM viva.live_replies AS l
    WHERE
        l.owner = CAST(:process_id AS uuid)
        AND l.message_id = ANY(CAST(:message_ids AS uuid[]))
),

closed AS (
    UPDATE viva.messages AS m
    SET
        content = t.text,
        status = CASE WHEN t.text = '' THEN 'failed' ELSE 'partial' END,
        finish_reason = :finish_reason,
        error_code = CASE WHEN t.text = '' THEN :finish_reason END
    FROM texts AS t
    WHERE m.id = t.message_id
    RETURNING m.id, m.session_id
),

forgotten AS (
    DELETE FROM viva.journal AS j USING closed AS c WHERE j.message_id = c.id
),

ended AS (
    DELETE FROM viva.live_replies AS l USING closed AS c WHERE l.message_id = c.id
),

touched AS (
    UPDATE viva.sessions AS s
    SET (updated_at, last_message_at) = (SELECT t, t FROM clock_timestamp() AS t)
    FROM closed AS c
    WHERE s.id = c.session_id
)

SELECT id AS message_id FROM closed;

-- name: forget_dead_processes
-- A dead row is kept for a day so that a woken process can still be told from a new one.
DELETE FROM viva.processes AS p
WHERE
    p.dead_at < clock_timestamp() - interval '1 day'
    AND NOT EXISTS (SELECT FROM viva.live_replies AS l WHERE l.owner = p.id);

-- name: sweep_journal
-- Remove text that a late statement wrote for a reply that had been closed meanwhile.
DELETE FROM viva.journal AS j
WHERE NOT EXISTS (SELECT FROM viva.live_replies AS l WHERE l.message_id = j.message_id);
