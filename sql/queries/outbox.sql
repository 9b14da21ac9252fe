-- Sends: claimed before the request, finished after it, settled by Evolution's events.

-- name: claim_sends
-- Take the first unsent part of each chat; "sending" is committed before the request.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

due AS (
    SELECT o.id
    FROM viva.outbox AS o
    WHERE
        o.state = 'waiting'
        AND o.due_at <= now()
        AND NOT EXISTS (
            SELECT FROM viva.outbox AS before
            WHERE
                before.instance = o.instance
                AND before.jid = o.jid
                AND before.seq < o.seq
                AND before.state IN ('waiting', 'sending', 'unknown')
                -- One of unknown outcome holds up the chat for its time only.
                AND (before.state <> 'unknown' OR before.due_at > clock_timestamp())
        )
    ORDER BY o.due_at
    LIMIT :sends
    FOR UPDATE SKIP LOCKED
)

UPDATE viva.outbox AS o
SET state = 'sending', owner = me.id
FROM due AS d, me
WHERE o.id = d.id
RETURNING
    CAST(o.id AS text) AS id,
    o.turn_id,
    o.instance,
    o.jid,
    o.text,
    jsonb_array_length(o.attempts) AS attempts,
    o.expires_at <= clock_timestamp() AS is_expired,
    EXISTS (
        SELECT FROM viva.whatsapp_chats AS c
        WHERE
            c.instance = o.instance
            AND c.jid = o.jid
            AND c.paused_until > clock_timestamp()
    ) AS is_paused;

-- name: finish_send
-- Write what became of a request; a later part of the same turn dies with this one.
WITH finished AS (
    UPDATE viva.outbox AS o
    SET
        state = CAST(:state AS text),
        owner = NULL,
        error = CAST(:error AS text),
        message_id = COALESCE(:message_id, o.message_id),
        sent_at = CASE WHEN CAST(:state AS text) = 'sent' THEN clock_timestamp() END,
        due_at = clock_timestamp()
        + make_interval(secs => CAST(:due_seconds AS double precision)),
        attempts = o.attempts || jsonb_build_object(
            'at', clock_timestamp(),
            'outcome', CAST(:outcome AS text),
            'reason', CAST(:error AS text)
        )
    WHERE
        o.id = CAST(:outbox_id AS uuid)
        AND o.state = 'sending'
        AND o.owner = CAST(:owner AS uuid)
    RETURNING o.turn_id, o.seq, o.state, o.instance, o.message_id
),

lost AS (
    UPDATE viva.outbox AS o
    SET state = f.state, error = 'earlier_part'
    FROM finished AS f
    WHERE
        f.state IN ('dead', 'dropped')
        AND o.turn_id = f.turn_id
        AND o.seq > f.seq
        AND o.state = 'waiting'
),

-- Receipts that came before the id was known.
early AS (
    UPDATE viva.inbox AS i
    SET is_pending = TRUE
    FROM finished AS f
    WHERE
        f.state = 'sent'
        AND i.message_id = f.message_id
        AND i.instance = f.instance
        AND i.kind = 'status'
        AND i.trusted
)

SELECT f.state FROM finished AS f;

-- name: wake_sends
-- An instance is open again: what waits for that is due.
UPDATE viva.outbox AS o
SET due_at = clock_timestamp()
WHERE
    o.state = 'waiting'
    AND o.due_at > clock_timestamp()
    AND o.instance = ANY(CAST(:instances AS text[]))
    AND o.error = ANY(CAST(:reasons AS text[]));

-- name: give_back_sends
-- Leave parts unsent whose request was never made.
UPDATE viva.outbox
SET state = 'waiting', owner = NULL
WHERE
    owner = CAST(:owner AS uuid)
    AND state = 'sending'
    AND id = ANY(CAST(:outbox_ids AS uuid[]));

-- name: load_sending
-- The parts that an owner sends, to find those whose claim's answer was lost.
SELECT CAST(id AS text) AS id
FROM viva.outbox
WHERE owner = CAST(:owner AS uuid);

-- name: doubt_sends_of_dead
-- A dead owner's requests may have been made: nobody makes them again.
UPDATE viva.outbox AS o
SET
    state = 'unknown',
    owner = NULL,
    error = 'crashed',
    due_at = clock_timestamp() + make_interval(secs => :settle_seconds),
    attempts = o.attempts || jsonb_build_object(
        'at', clock_timestamp(), 'outcome', 'unknown', 'reason', 'crashed'
    )
WHERE o.owner = CAST(:process_id AS uuid);

-- name: replay_send
-- Send a part again, and the later ones that died with it.
WITH part AS (
    UPDATE viva.outbox
    SET
        state = 'waiting',
        error = NULL,
        message_id = NULL,
        receipt = NULL,
        receipt_rank = 0,
        due_at = clock_timestamp(),
        expires_at = clock_timestamp() + interval '1 hour'
    WHERE id = CAST(:outbox_id AS uuid) AND state IN ('dead', 'unknown')
    RETURNING turn_id, seq, id
),

later AS (
    UPDATE viva.outbox AS o
    SET
        state = 'waiting',
        error = NULL,
        due_at = clock_timestamp(),
        expires_at = clock_timestamp() + interval '1 hour'
    FROM part AS p
    WHERE
        o.turn_id = p.turn_id
        AND o.seq > p.seq
        AND o.state = 'dead'
        AND o.error = 'earlier_part'
)

SELECT id FROM part;
