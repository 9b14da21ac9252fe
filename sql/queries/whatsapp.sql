-- A WhatsApp chat's work: claimed, turned into a turn, run, given back.

-- name: claim_chats
-- Take chats whose time has come; each has one owner, until that is declared dead.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

due AS (
    SELECT c.instance, c.jid
    FROM viva.whatsapp_chats AS c
    WHERE c.owner IS NULL AND c.due_at <= now()
    ORDER BY c.due_at
    LIMIT :chats
    FOR UPDATE SKIP LOCKED
)

UPDATE viva.whatsapp_chats AS c
SET owner = me.id, due_at = NULL, latest_at = NULL
FROM due AS d, me
WHERE c.instance = d.instance AND c.jid = d.jid
RETURNING c.instance, c.jid;

-- name: load_claimed
-- The chats that an owner has, to find those whose claim's answer was lost.
SELECT instance, jid
FROM viva.whatsapp_chats
WHERE owner = CAST(:owner AS uuid);

-- name: load_chat
-- All that decides what is done in a claimed chat; no row: it is not this owner's.
SELECT
    c.paused_until > clock_timestamp() AS is_paused,
    CAST(extract(EPOCH FROM c.paused_by) AS double precision) AS paused_by,
    t.id AS turn_id,
    t.user_message_id,
    t.runs,
    r.status AS reply_status,
    r.finish_reason,
    r.error_code,
    r.error_is_final,
    -- Since when there have been as many answers as are allowed in that time.
    CAST(extract(EPOCH FROM (
        SELECT e.ended_at + make_interval(secs => :window_seconds)
        FROM viva.whatsapp_turns AS e
        WHERE
            e.instance = c.instance
            AND e.jid = c.jid
            AND e.ended_at > now() - make_interval(secs => :window_seconds)
            -- A clock that was put back: what is ahead of it is in no window.
            AND e.ended_at <= now()
        ORDER BY e.ended_at DESC
        OFFSET :answers - 1 LIMIT 1
    ) - clock_timestamp()) AS double precision) AS full_seconds,
    (
        SELECT l.jid FROM viva.whatsapp_lids AS l
        WHERE l.instance = c.instance AND l.lid = c.jid
    ) AS phone_jid,
    (
        SELECT l.lid
        FROM viva.whatsapp_lids AS l
        INNER JOIN viva.whatsapp_chats AS other
            ON other.instance = l.instance AND other.jid = l.lid
        WHERE l.instance = c.instance AND l.jid = c.jid
        LIMIT 1
    ) AS lid_chat
FROM viva.whatsapp_chats AS c
LEFT JOIN viva.whatsapp_turns AS t
    ON t.instance = c.instance
    AND t.jid = c.jid
    AND t.state = 'running'
    AND t.ended_at IS NULL
LEFT JOIN viva.messages AS r ON r.id = t.reply_id
WHERE
    c.instance = :instance
    AND c.jid = :jid
    AND c.owner = CAST(:owner AS uuid);

-- name: load_waiting
-- A chat's messages that are to be answered and have no turn yet, by their time.
SELECT
    m.message_id,
    m.kind,
    m.text,
    CAST(extract(EPOCH FROM m.sent_at) AS double precision) AS sent_at,
    CAST(
        extract(EPOCH FROM clock_timestamp() - m.sent_at) AS double precision
    ) AS age_seconds
FROM viva.whatsapp_messages AS m
WHERE
    m.instance = :instance
    AND m.jid = :jid
    AND m.turn_id IS NULL
    AND m.why_not IS NULL
ORDER BY m.sent_at, m.inbox_id, m.message_id;

-- name: load_turn_messages
-- The messages that a turn answers, by their time.
SELECT
    m.message_id,
    m.kind,
    m.text,
    CAST(extract(EPOCH FROM m.sent_at) AS double precision) AS sent_at,
    CAST(
        extract(EPOCH FROM clock_timestamp() - m.sent_at) AS double precision
    ) AS age_seconds
FROM viva.whatsapp_messages AS m
WHERE m.turn_id = CAST(:turn_id AS uuid)
ORDER BY m.sent_at, m.inbox_id, m.message_id;

-- name: skip_messages
-- Say why messages of a claimed chat are not answered.
UPDATE viva.whatsapp_messages AS m
SET why_not = :why_not
FROM viva.whatsapp_chats AS c
WHERE
    c.instance = :instance
    AND c.jid = :jid
    AND c.owner = CAST(:owner AS uuid)
    AND m.instance = c.instance
    AND m.turn_id IS NULL
    AND m.message_id = ANY(CAST(:message_ids AS text[]));

-- name: add_turn
-- Begin a turn with messages of a claimed chat; no row: the chat is not this owner's.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

turn AS (
    INSERT INTO viva.whatsapp_turns (id, instance, jid, user_message_id, state)
    SELECT
        CAST(:turn_id AS uuid),
        c.instance,
        c.jid,
        CAST(:user_message_id AS uuid),
        'running'
    FROM viva.whatsapp_chats AS c, me
    WHERE c.instance = :instance AND c.jid = :jid AND c.owner = me.id
    RETURNING id, instance
),

taken AS (
    UPDATE viva.whatsapp_messages AS m
    SET turn_id = t.id
    FROM turn AS t
    WHERE
        m.instance = t.instance
        AND m.message_id = ANY(CAST(:message_ids AS text[]))
        AND m.turn_id IS NULL
)

SELECT t.id FROM turn AS t;

-- name: start_run
-- Count a run of a turn and name its reply; no row: the turn is not this owner's.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
)

UPDATE viva.whatsapp_turns AS t
SET
    runs = t.runs + 1,
    cut_reply_ids = CASE
        WHEN t.reply_id IS NULL THEN t.cut_reply_ids
        ELSE t.cut_reply_ids || t.reply_id
    END,
    reply_id = CAST(:reply_id AS uuid)
FROM viva.whatsapp_chats AS c, me
WHERE
    t.id = CAST(:turn_id AS uuid)
    AND t.state = 'running'
    AND c.instance = t.instance
    AND c.jid = t.jid
    AND c.owner = me.id
RETURNING t.runs;

-- name: take_back_run
-- A run that could not begin does not count.
UPDATE viva.whatsapp_turns AS t
SET runs = t.runs - 1
FROM viva.whatsapp_chats AS c
WHERE
    t.id = CAST(:turn_id AS uuid)
    AND t.state = 'running'
    AND t.runs > 0
    AND t.reply_id = CAST(:reply_id AS uuid)
    AND c.instance = t.instance
    AND c.jid = t.jid
    AND c.owner = CAST(:owner AS uuid);

-- name: close_turns
-- close_replies for turns: the parts of one that is sent are in the outbox with its closing.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

given AS (
    SELECT
        c.fields,
        CAST(c.fields ->> 0 AS uuid) AS message_id
    FROM jsonb_array_elements(CAST(:replies AS jsonb)) AS c (fields)
),

closed AS (
    UPDATE viva.messages AS m
    SET
        content = g.fields ->> 1,
        status = g.fields ->> 2,
        finish_reason = g.fields ->> 3,
        error_code = g.fields ->> 4,
        error_is_final = CAST(g.fields ->> 5 AS boolean),
        meta = CASE
            WHEN jsonb_typeof(g.fields -> 6) = 'object'
                THEN m.meta || jsonb_build_object('usage', g.fields -> 6)
            ELSE m.meta
        END
    FROM
        me
    CROSS JOIN given AS g
    INNER JOIN viva.live_replies AS l
        ON l.message_id = g.message_id AND l.owner = me.id
    WHERE m.id = l.message_id
    RETURNING
        m.id,
        m.session_id,
        m.status = 'complete'
        OR (m.status = 'partial' AND m.finish_reason = 'limit') AS is_sent
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
),

answered AS (
    UPDATE viva.whatsapp_turns AS t
    SET state = 'answered', error = NULL, ended_at = clock_timestamp()
    FROM closed AS c
    WHERE t.reply_id = c.id AND c.is_sent AND t.state = 'running'
    RETURNING t.id, t.instance, t.jid, t.reply_id
),

put AS (
    INSERT INTO viva.outbox (id, turn_id, instance, jid, text)
    SELECT
        CAST(p.fields ->> 0 AS uuid),
        a.id,
        a.instance,
        a.jid,
        p.fields ->> 1
    FROM answered AS a
    INNER JOIN given AS g ON g.message_id = a.reply_id
    CROSS JOIN jsonb_array_elements(g.fields -> 7)
    WITH ORDINALITY AS p (fields, part)
    ORDER BY a.id, p.part
)

SELECT me.id, s.id AS message_id
FROM me
LEFT JOIN (
    SELECT c.id FROM closed AS c
    UNION ALL
    SELECT m.id
    FROM viva.messages AS m
    WHERE
        m.id = ANY(SELECT g.message_id FROM given AS g) AND m.status <> 'streaming'
) AS s ON TRUE;

-- name: end_turn
-- End a turn without a reply, with a fixed text to be sent if there is one; no row: not this owner's.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

turn AS (
    UPDATE viva.whatsapp_turns AS t
    SET state = :state, error = :error, ended_at = clock_timestamp()
    FROM viva.whatsapp_chats AS c, me
    WHERE
        t.id = CAST(:turn_id AS uuid)
        AND t.state = 'running'
        AND c.instance = t.instance
        AND c.jid = t.jid
        AND c.owner = me.id
    RETURNING t.id, t.instance, t.jid
),

put AS (
    INSERT INTO viva.outbox (id, turn_id, instance, jid, text)
    SELECT
        CAST(:outbox_id AS uuid),
        t.id,
        t.instance,
        t.jid,
        :text
    FROM turn AS t
    WHERE CAST(:text AS text) IS NOT NULL
)

SELECT t.id FROM turn AS t;

-- name: release_chat
-- Give a chat back, due again after some seconds if it is to be.
UPDATE viva.whatsapp_chats
SET
    owner = NULL,
    due_at = GREATEST(
        due_at,
        clock_timestamp()
        + make_interval(secs => CAST(:again_seconds AS double precision))
    )
WHERE instance = :instance AND jid = :jid AND owner = CAST(:owner AS uuid);

-- name: release_chats_of_dead
-- A dead owner's chats are due at once, for whoever claims them.
UPDATE viva.whatsapp_chats
SET owner = NULL, due_at = COALESCE(due_at, clock_timestamp())
WHERE owner = CAST(:process_id AS uuid);

-- name: end_pause
-- What began a pause was no person: it is over.
UPDATE viva.whatsapp_chats
SET paused_until = NULL, paused_by = NULL
WHERE instance = :instance AND jid = :jid AND owner = CAST(:owner AS uuid);

-- name: lock_chat
-- Keep a chat from being claimed or changed for the rest of a transaction.
SELECT
    c.owner,
    c.due_at,
    EXISTS (
        SELECT FROM viva.whatsapp_turns AS t
        WHERE t.instance = c.instance AND t.jid = c.jid AND t.state = 'running'
    ) AS has_turn
FROM viva.whatsapp_chats AS c
WHERE c.instance = :instance AND c.jid = :jid
FOR UPDATE;

-- name: move_chat
-- A lid's chat becomes the phone's: queue, pause, messages, turns and sends.
WITH gone AS (
    DELETE FROM viva.whatsapp_chats
    WHERE instance = :instance AND jid = :lid
    RETURNING due_at, paused_until, paused_by
),

messages AS (
    UPDATE viva.whatsapp_messages SET jid = :jid
    WHERE instance = :instance AND jid = :lid
),

turns AS (
    UPDATE viva.whatsapp_turns SET jid = :jid
    WHERE instance = :instance AND jid = :lid
),

sends AS (
    UPDATE viva.outbox SET jid = :jid
    WHERE
        instance = :instance
        AND jid = :lid
        AND state IN ('waiting', 'sending', 'unknown')
),

sessions AS (
    UPDATE viva.sessions SET person = :person
    WHERE channel = 'whatsapp' AND person = :lid_person
)

INSERT INTO viva.whatsapp_chats AS c (instance, jid, due_at, paused_until, paused_by)
SELECT
    :instance,
    :jid,
    COALESCE(g.due_at, clock_timestamp()),
    g.paused_until,
    g.paused_by
FROM gone AS g
ON CONFLICT ON CONSTRAINT whatsapp_chats_pkey DO UPDATE SET
    due_at = GREATEST(c.due_at, excluded.due_at),
    paused_until = GREATEST(c.paused_until, excluded.paused_until),
    paused_by = GREATEST(c.paused_by, excluded.paused_by);

-- name: list_dead
-- What could not be answered, sent or applied, oldest first.
(
    SELECT
        CAST(t.id AS text) AS id,
        'turn' AS kind,
        t.instance,
        t.jid,
        t.state,
        t.error,
        t.ended_at AS since
    FROM viva.whatsapp_turns AS t
    WHERE t.state = 'dead'
    ORDER BY t.ended_at
    LIMIT :rows
)
UNION ALL
(
    SELECT
        CAST(o.id AS text) AS id,
        'send' AS kind,
        o.instance,
        o.jid,
        o.state,
        o.error,
        o.created_at AS since
    FROM viva.outbox AS o
    WHERE o.state IN ('dead', 'unknown')
    ORDER BY o.created_at
    LIMIT :rows
)
UNION ALL
(
    SELECT
        CAST(i.id AS text) AS id,
        'event' AS kind,
        i.instance,
        i.chat AS jid,
        'dead' AS state,
        i.problem AS error,
        i.received_at AS since
    FROM viva.inbox AS i
    WHERE i.problem IS NOT NULL
    ORDER BY i.received_at
    LIMIT :rows
)
ORDER BY since
LIMIT :rows;

-- name: replay_turn
-- Run a dead turn again, as if it were new; its text comes behind what was said since.
WITH turn AS (
    UPDATE viva.whatsapp_turns AS t
    SET
        state = 'running',
        error = NULL,
        ended_at = NULL,
        runs = 0,
        cut_reply_ids = array_remove(t.cut_reply_ids || t.reply_id, NULL),
        reply_id = NULL,
        user_message_id = CAST(:user_message_id AS uuid)
    WHERE
        t.id = CAST(:turn_id AS uuid)
        AND t.state = 'dead'
        AND NOT EXISTS (
            SELECT FROM viva.whatsapp_turns AS r
            WHERE r.instance = t.instance AND r.jid = t.jid AND r.state = 'running'
        )
    RETURNING t.instance, t.jid
)

INSERT INTO viva.whatsapp_chats AS c (instance, jid, due_at)
SELECT
    t.instance,
    t.jid,
    clock_timestamp()
FROM turn AS t
ON CONFLICT ON CONSTRAINT whatsapp_chats_pkey
DO UPDATE SET due_at = GREATEST(c.due_at, excluded.due_at);

-- name: replay_event
-- Apply an event again that was put aside.
UPDATE viva.inbox
SET is_pending = TRUE, problem = NULL
WHERE id = CAST(:inbox_id AS uuid) AND problem IS NOT NULL;
