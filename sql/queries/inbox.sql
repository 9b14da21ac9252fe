-- Deliveries: stored with what of them is work, applied, looked for.

-- name: add_webhooks, prepared
-- Store deliveries, their messages and when the chats are due; a known key counts one more. Safe to repeat: an id never counts twice.
WITH given AS MATERIALIZED (
    SELECT
        d.fields,
        decode(d.fields ->> 1, 'hex') AS dedupe_key,
        -- Here, where they still stand in the order in which they came.
        clock_timestamp()
        - CAST(d.fields ->> 14 AS double precision) * interval '1 second'
            AS received_at
    FROM jsonb_array_elements(CAST(:deliveries AS jsonb)) AS d (fields)
),

stored AS (
    INSERT INTO viva.inbox AS known (
        id, dedupe_key, instance, event, is_known, kind, answer, trusted, chat,
        message_id, tail, headers, form, body, received_at, deliveries, is_pending
    )
    SELECT
        CAST(g.fields ->> 0 AS uuid),
        g.dedupe_key,
        g.fields ->> 2,
        g.fields ->> 3,
        CAST(g.fields ->> 4 AS boolean),
        g.fields ->> 5,
        CAST(g.fields ->> 6 AS boolean),
        CAST(g.fields ->> 7 AS boolean),
        g.fields ->> 8,
        g.fields ->> 9,
        g.fields ->> 10,
        g.fields -> 11,
        g.fields -> 12,
        g.fields -> 13,
        g.received_at,
        CAST(g.fields ->> 15 AS integer),
        CAST(g.fields ->> 16 AS boolean)
    FROM given AS g
    -- Two processes that store the same keys lock them in one order.
    ORDER BY g.dedupe_key
    ON CONFLICT (dedupe_key) DO UPDATE SET
        deliveries = known.deliveries
            + CASE WHEN known.id = excluded.id THEN 0 ELSE excluded.deliveries END,
        redelivered_at = CASE
            WHEN known.id = excluded.id OR cardinality(known.redelivered_at) >= 32
                THEN known.redelivered_at
            ELSE known.redelivered_at || excluded.received_at
        END,
        trusted = known.trusted OR excluded.trusted,
        -- Pending at its first trusted delivery, once.
        is_pending = known.is_pending OR (excluded.is_pending AND NOT known.trusted)
    RETURNING known.id, known.dedupe_key, known.instance, known.received_at
),

said AS (
    SELECT
        s.id AS inbox_id,
        s.instance,
        s.received_at,
        m.fields,
        -- A known lid is the phone's chat.
        COALESCE(l.jid, m.fields ->> 1) AS jid
    FROM given AS g
    INNER JOIN stored AS s ON s.dedupe_key = g.dedupe_key
    CROSS JOIN jsonb_array_elements(g.fields -> 17) AS m (fields)
    -- As it was before this statement: only the first trusted delivery says something.
    -- With a limit, which no plan can turn into reading all of a table.
    LEFT JOIN LATERAL (
        SELECT i.id, i.trusted FROM viva.inbox AS i
        WHERE i.dedupe_key = g.dedupe_key
        LIMIT 1
    ) AS known ON TRUE
    LEFT JOIN LATERAL (
        SELECT w.jid FROM viva.whatsapp_lids AS w
        WHERE w.instance = s.instance AND w.lid = m.fields ->> 1
        LIMIT 1
    ) AS l ON TRUE
    WHERE known.id IS NULL OR NOT known.trusted
),

learned AS (
    INSERT INTO viva.whatsapp_lids (instance, lid, jid)
    SELECT DISTINCT ON (s.instance, s.fields ->> 2)
        s.instance,
        s.fields ->> 2,
        s.jid
    FROM said AS s
    WHERE s.fields ->> 2 IS NOT NULL
    ORDER BY s.instance, s.fields ->> 2
    ON CONFLICT ON CONSTRAINT whatsapp_lids_pkey DO NOTHING
),

kept AS (
    INSERT INTO viva.whatsapp_messages (
        instance, message_id, jid, inbox_id, kind, text, sent_at, why_not
    )
    SELECT DISTINCT ON (s.instance, s.fields ->> 0)
        s.instance,
        s.fields ->> 0,
        s.jid,
        s.inbox_id,
        s.fields ->> 3,
        s.fields ->> 4,
        COALESCE(
            to_timestamp(CAST(s.fields ->> 5 AS double precision)), s.received_at
        ),
        s.fields ->> 6
    FROM said AS s
    ORDER BY s.instance, s.fields ->> 0
    ON CONFLICT ON CONSTRAINT whatsapp_messages_pkey DO NOTHING
    RETURNING instance, jid, why_not
),

due AS (
    INSERT INTO viva.whatsapp_chats AS c (instance, jid, due_at, latest_at)
    SELECT
        k.instance,
        k.jid,
        clock_timestamp() + make_interval(secs => :debounce_seconds),
        clock_timestamp() + GREATEST(
            make_interval(secs => 10 * :debounce_seconds), interval '30 seconds'
        )
    FROM kept AS k
    WHERE k.why_not IS NULL
    GROUP BY k.instance, k.jid
    ORDER BY k.instance, k.jid
    ON CONFLICT ON CONSTRAINT whatsapp_chats_pkey
    DO UPDATE SET
        due_at = GREATEST(
            c.due_at,
            LEAST(excluded.due_at, COALESCE(c.latest_at, excluded.latest_at))
        ),
        latest_at = COALESCE(c.latest_at, excluded.latest_at)
)

SELECT
    CAST(s.id AS text) AS id,
    encode(s.dedupe_key, 'hex') AS dedupe_key
FROM stored AS s

-- name: load_pending
-- Receipts, own messages, edits and deletes that are not applied yet, oldest first.
SELECT
    CAST(i.id AS text) AS id,
    i.instance,
    i.kind,
    i.form,
    CAST(extract(EPOCH FROM i.received_at) AS double precision) AS received_at
FROM viva.inbox AS i
WHERE i.is_pending
ORDER BY i.received_at
LIMIT :rows;

-- name: drop_pending
-- Deliveries are applied, or nothing is to be done for them.
UPDATE viva.inbox
SET is_pending = FALSE
WHERE id = ANY(CAST(:inbox_ids AS uuid[])) AND is_pending;

-- name: put_problem
-- Put an event aside that cannot be applied, until somebody replays it.
UPDATE viva.inbox
SET is_pending = FALSE, problem = :problem
WHERE id = CAST(:inbox_id AS uuid);

-- name: apply_receipts
-- Move what was sent forward by its receipts, never back; one that failed is dead.
WITH furthest AS (
    SELECT DISTINCT ON (r.fields ->> 0, r.fields ->> 1)
        r.fields ->> 0 AS instance,
        r.fields ->> 1 AS message_id,
        r.fields ->> 2 AS receipt,
        CAST(r.fields ->> 3 AS smallint) AS receipt_rank
    FROM jsonb_array_elements(CAST(:receipts AS jsonb)) AS r (fields)
    ORDER BY r.fields ->> 0, r.fields ->> 1, CAST(r.fields ->> 3 AS smallint) DESC
)

UPDATE viva.outbox AS o
SET
    receipt = f.receipt,
    receipt_rank = f.receipt_rank,
    state = CASE WHEN f.receipt_rank = :failed_rank THEN 'dead' ELSE o.state END,
    error = CASE
        WHEN f.receipt_rank = :failed_rank THEN 'receipt_' || lower(f.receipt)
        ELSE o.error
    END
FROM furthest AS f
WHERE
    o.instance = f.instance
    AND o.message_id = f.message_id
    AND o.state = 'sent'
    AND o.receipt_rank < f.receipt_rank
RETURNING o.state;

-- name: apply_edit
-- Record an edit of a person's message; while it waits, its new text is answered.
UPDATE viva.whatsapp_messages AS m
SET
    edited_at = to_timestamp(:changed_at),
    text = CASE
        WHEN m.turn_id IS NULL AND m.why_not IS NULL THEN COALESCE(:text, m.text)
        ELSE m.text
    END
WHERE
    m.instance = :instance
    AND m.message_id = :target_id
    AND COALESCE(m.edited_at, '-infinity') < to_timestamp(:changed_at);

-- name: apply_delete
-- Record that a person took a message back; while it waits, it is not answered.
UPDATE viva.whatsapp_messages AS m
SET
    deleted_at = to_timestamp(:changed_at),
    why_not = CASE
        WHEN m.turn_id IS NULL THEN COALESCE(m.why_not, 'deleted')
        ELSE m.why_not
    END
WHERE
    m.instance = :instance
    AND m.message_id = :target_id
    AND m.deleted_at IS NULL;

-- name: find_own_sends
-- Parts that an own message may be: of its id, or in its chat and without an id.
WITH chat AS (
    SELECT CAST(:jid AS text) AS jid
    UNION
    SELECT l.jid FROM viva.whatsapp_lids AS l
    WHERE l.instance = :instance AND l.lid = :jid
),

found AS (
    SELECT o.id, o.seq, o.state, o.text, TRUE AS same_id
    FROM viva.outbox AS o
    WHERE o.message_id = :message_id AND o.instance = :instance
    UNION ALL
    SELECT o.id, o.seq, o.state, o.text, FALSE AS same_id
    FROM viva.outbox AS o
    INNER JOIN chat AS c ON c.jid = o.jid
    WHERE
        o.instance = :instance
        AND o.state IN ('sending', 'unknown')
        AND o.message_id IS NULL
)

SELECT
    CAST(f.id AS text) AS id,
    f.state,
    f.same_id,
    btrim(f.text) = btrim(:text) AS same_text
FROM found AS f
ORDER BY f.seq;

-- name: apply_own_send
-- An own message proves that a part was sent; its early receipts count now.
WITH settled AS (
    UPDATE viva.outbox AS o
    SET
        state = 'sent',
        owner = NULL,
        error = NULL,
        message_id = :message_id,
        sent_at = clock_timestamp(),
        attempts = o.attempts || jsonb_build_object(
            'at', clock_timestamp(), 'outcome', 'sent', 'reason', 'event'
        )
    WHERE o.id = CAST(:outbox_id AS uuid) AND o.state IN ('sending', 'unknown')
    RETURNING o.instance, o.message_id
)

UPDATE viva.inbox AS i
SET is_pending = TRUE
FROM settled AS s
WHERE
    i.message_id = s.message_id
    AND i.instance = s.instance
    AND i.kind = 'status'
    AND i.trusted;

-- name: apply_handover
-- Handover: somebody answers by hand. Pause the assistant, but for a greeting behind a message.
WITH spoken AS (
    SELECT
        to_timestamp(:spoken_at) AS at,
        COALESCE(
            (
                SELECT l.jid FROM viva.whatsapp_lids AS l
                WHERE l.instance = :instance AND l.lid = :jid
            ),
            :jid
        ) AS jid
    FROM viva.inbox AS i
    -- An erasure empties the delivery, and removes the chat behind that.
    WHERE i.id = CAST(:inbox_id AS uuid) AND i.is_pending
    FOR SHARE OF i
)

INSERT INTO viva.whatsapp_chats AS c (instance, jid, paused_by, paused_until)
SELECT
    :instance,
    s.jid,
    s.at,
    s.at + make_interval(secs => :handover_seconds)
FROM spoken AS s
WHERE
    NOT EXISTS (
        SELECT FROM viva.whatsapp_messages AS m
        WHERE
            m.instance = :instance
            AND m.jid = s.jid
            AND m.sent_at
            BETWEEN s.at - make_interval(secs => :greeting_seconds) AND s.at
    )
ON CONFLICT ON CONSTRAINT whatsapp_chats_pkey DO UPDATE SET
    paused_by = GREATEST(c.paused_by, excluded.paused_by),
    paused_until = GREATEST(c.paused_until, excluded.paused_until);

-- name: find_instances
-- The instances that have delivered a message; one step of the index for each.
WITH RECURSIVE found (instance) AS (
    (
        SELECT instance FROM viva.inbox
        WHERE chat IS NOT NULL
        ORDER BY instance LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT later.instance FROM viva.inbox AS later
        WHERE later.chat IS NOT NULL AND later.instance > found.instance
        ORDER BY later.instance LIMIT 1
    )
    FROM found
    WHERE found.instance IS NOT NULL
)
SELECT instance FROM found WHERE instance > '' LIMIT :most;

-- name: seconds_since_webhook
-- How long ago the last delivery came, by the database's clock; NULL: there was none.
SELECT CAST(extract(epoch FROM clock_timestamp() - max(received_at)) AS double precision)
    AS seconds
FROM viva.inbox;

-- name: find_stored_messages
-- Which of an instance's messages have come, with their content. A look at the index for each, by LIMIT.
SELECT asked.message_id
FROM unnest(CAST(:message_ids AS text[])) AS asked (message_id)
CROSS JOIN LATERAL (
    SELECT 1 FROM viva.inbox AS known
    WHERE known.message_id = asked.message_id
        AND known.instance = :instance
        AND known.event IN ('messages.upsert', 'send.message')
        AND known.kind <> 'empty'
    LIMIT 1
) AS found;
