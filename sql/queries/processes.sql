-- Who is alive, and the fence.

-- name: add_process
-- Register this process as an owner of replies; a repeated try changes nothing.
INSERT INTO viva.processes (id, lock_key, version, host, pid)
VALUES (CAST(:process_id AS uuid), :lock_key, :version, :host, :pid)
ON CONFLICT ON CONSTRAINT processes_pkey DO NOTHING;

-- name: take_process_lock
-- Hold the lock that says "alive" on this connection, if no stale connection has it.
SELECT pg_try_advisory_lock(:lock_key) AS held;

-- name: beat
-- Heartbeat; no row means that another process has declared this one dead.
UPDATE viva.processes
SET beat_at = clock_timestamp(), readers = :readers
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NULL
RETURNING id;

-- name: remove_process
-- Leave in order: nothing is owned any more.
DELETE FROM viva.processes AS p
WHERE
    p.id = CAST(:process_id AS uuid)
    AND NOT EXISTS (SELECT FROM viva.live_replies AS l WHERE l.owner = p.id)
    AND NOT EXISTS (SELECT FROM viva.whatsapp_chats AS c WHERE c.owner = p.id)
    AND NOT EXISTS (SELECT FROM viva.outbox AS o WHERE o.owner = p.id);

-- name: find_silent_processes
-- Owners whose heartbeat is late; none within 15 s of a start of the database.
SELECT id
FROM viva.processes
WHERE
    dead_at IS NULL
    AND id <> CAST(:process_id AS uuid)
    AND (
        CAST(:sole AS boolean)
        OR (
            beat_at < clock_timestamp() - make_interval(secs => :late_seconds)
            AND pg_postmaster_start_time()
            < clock_timestamp() - make_interval(secs => :frozen_seconds)
        )
    );

-- name: lock_process
-- Wait for nobody: an owner with a statement under way is looked at again later.
SELECT id
FROM viva.processes
WHERE id = CAST(:process_id AS uuid) AND dead_at IS NULL
FOR UPDATE SKIP LOCKED;

-- name: declare_dead
-- Judge with a fresh look: silent for long, or silent for a moment and its lock free.
UPDATE viva.processes
SET dead_at = clock_timestamp()
WHERE
    id = CAST(:process_id AS uuid)
    AND dead_at IS NULL
    AND (
        CAST(:sole AS boolean)
        OR beat_at < clock_timestamp() - make_interval(secs => :frozen_seconds)
        OR (
            beat_at < clock_timestamp() - make_interval(secs => :late_seconds)
            AND pg_try_advisory_xact_lock(lock_key)
        )
    )
RETURNING id;

-- name: close_from_journal
-- Close replies of an owner with all the text that was committed for them.
WITH texts AS (
    SELECT
        l.message_id,
        l.session_id,
        COALESCE(string_agg(j.text, '' ORDER BY j.start), '') AS text
    FROM viva.live_replies AS l
    LEFT JOIN viva.journal AS j ON j.message_id = l.message_id
    WHERE
        l.owner = CAST(:process_id AS uuid)
        AND l.message_id = ANY(CAST(:message_ids AS uuid[]))
    GROUP BY l.message_id, l.session_id
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
