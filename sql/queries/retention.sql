-- What is kept no longer, and the record of what was done with people's data.

-- name: take_purge_lock
-- One process purges at a time; the others need not.
SELECT pg_try_advisory_lock(:lock_key) AS held;

-- name: find_idle_sessions
-- Sessions without activity for so long, in a stretch of all of them.
WITH looked AS (
    SELECT id, updated_at
    FROM viva.sessions
    WHERE id > CAST(:after_id AS uuid)
    ORDER BY id
    LIMIT :batch
)

SELECT
    id,
    updated_at < clock_timestamp() - make_interval(secs => :old_seconds) AS is_idle
FROM looked
ORDER BY id;

-- name: lock_idle_session
-- Judge again under the lock: somebody may have written meanwhile.
SELECT s.id
FROM viva.sessions AS s
WHERE
    s.id = CAST(:session_id AS uuid)
    AND s.updated_at < clock_timestamp() - make_interval(secs => :old_seconds)
FOR UPDATE SKIP LOCKED;

-- name: empty_old_deliveries
-- Take the content out of old deliveries in a stretch of the inbox; their keys stay.
WITH looked AS (
    SELECT id, received_at
    FROM viva.inbox
    WHERE id > CAST(:after_id AS uuid)
    ORDER BY id
    LIMIT :batch
),

old AS (
    SELECT id
    FROM looked
    WHERE received_at < clock_timestamp() - make_interval(secs => :old_seconds)
),

emptied AS (
    UPDATE viva.inbox AS i
    SET
        kind = 'emptied',
        answer = FALSE,
        -- As if it had had its effect: the first trusted delivery of an event has one.
        trusted = TRUE,
        is_pending = FALSE,
        problem = NULL,
        chat = NULL,
        tail = '',
        headers = '{}',
        form = '{}',
        body = '{}'
    WHERE i.id = ANY(ARRAY(SELECT id FROM old)) AND i.kind <> 'emptied'
    RETURNING i.id
),

forgotten AS (
    DELETE FROM viva.whatsapp_messages AS m
    WHERE
        m.inbox_id = ANY(ARRAY(SELECT id FROM old))
        AND (
            m.why_not IS NOT NULL
            OR (
                SELECT t.state FROM viva.whatsapp_turns AS t WHERE t.id = m.turn_id
            ) <> 'running'
            -- It waits, but VIVA_WHATSAPP_MAX_AGE_SECONDS is seven days at most.
            OR (
                m.turn_id IS NULL
                AND m.sent_at < clock_timestamp() - interval '7 days'
            )
        )
)

SELECT
    (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last_id,
    (SELECT count(*) FROM looked) AS looked,
    (SELECT count(*) FROM emptied) AS emptied;

-- name: remove_old_deliveries
-- Some of the deliveries whose keys are needed no longer.
DELETE FROM viva.inbox
WHERE
    ctid = ANY(
        ARRAY(
            SELECT i.ctid
            FROM viva.inbox AS i
            WHERE
                i.received_at
                < clock_timestamp() - make_interval(secs => :old_seconds)
                AND (
                    i.erased_at IS NULL
                    OR i.erased_at
                    < clock_timestamp() - make_interval(secs => :key_seconds)
                )
            ORDER BY i.received_at
            LIMIT :batch
            FOR UPDATE SKIP LOCKED
        )
    );

-- name: add_audit
-- Say that something begins.
INSERT INTO viva.audit (id, action, person_hmac)
VALUES (CAST(:audit_id AS uuid), :action, CAST(:person_hmac AS bytea));

-- name: finish_audit
-- Say that it was done, and how much it was.
UPDATE viva.audit
SET finished_at = clock_timestamp(), counts = CAST(:counts AS jsonb)
WHERE id = CAST(:audit_id AS uuid);

-- name: has_recent_audit
-- Has this been done lately?
SELECT EXISTS (
    SELECT FROM viva.audit AS a
    WHERE
        a.action = :action
        AND a.started_at > clock_timestamp() - make_interval(secs => :old_seconds)
        AND a.finished_at IS NOT NULL
) AS found;

-- name: forget_audits
-- Some of the records that are old enough, of one action.
DELETE FROM viva.audit
WHERE
    action = :action
    AND started_at < clock_timestamp() - make_interval(secs => :old_seconds);
