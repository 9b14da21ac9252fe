-- What the WhatsApp queue has of people: stopped, exported, erased, kept no longer.

-- name: stop_chats
-- Let nothing more be done in a person's chats. 0: nothing was under way before this.
WITH skipped AS (
    UPDATE viva.whatsapp_messages AS m
    SET why_not = 'erased'
    WHERE
        m.instance = :instance
        AND m.jid = ANY(CAST(:jids AS text[]))
        AND m.turn_id IS NULL
        AND m.why_not IS NULL
    RETURNING m.message_id
),

ended AS (
    UPDATE viva.whatsapp_turns AS t
    SET state = 'dead', error = 'erased', ended_at = clock_timestamp()
    WHERE
        t.instance = :instance
        AND t.jid = ANY(CAST(:jids AS text[]))
        AND t.state = 'running'
    RETURNING t.id
),

dropped AS (
    UPDATE viva.outbox AS o
    SET state = 'dropped', error = 'erased'
    WHERE
        o.instance = :instance
        AND o.jid = ANY(CAST(:jids AS text[]))
        AND o.state = 'waiting'
    RETURNING o.id
)

SELECT
    (SELECT count(*) FROM skipped)
    + (SELECT count(*) FROM ended)
    + (SELECT count(*) FROM dropped)
    + (
        SELECT count(*)
        FROM viva.outbox AS o
        WHERE
            o.instance = :instance
            AND o.jid = ANY(CAST(:jids AS text[]))
            -- As it was before this statement.
            AND o.state IN ('waiting', 'sending')
    )
    + (
        SELECT count(*)
        FROM viva.whatsapp_chats AS c
        WHERE
            c.instance = :instance
            AND c.jid = ANY(CAST(:jids AS text[]))
            AND c.owner IS NOT NULL
    ) AS busy;

-- name: export_whatsapp_messages
-- A page of the messages in a person's chats.
SELECT
    m.instance,
    m.message_id,
    m.jid,
    m.inbox_id,
    m.kind,
    m.text,
    m.sent_at,
    m.why_not,
    m.turn_id,
    m.edited_at,
    m.deleted_at
FROM viva.whatsapp_messages AS m
WHERE
    m.instance = :instance
    AND m.jid = :jid
    AND (m.sent_at, m.message_id)
    > (CAST(:after_at AS timestamptz), CAST(:after_message_id AS text))
ORDER BY m.sent_at, m.message_id
LIMIT :batch;

-- name: export_turns
-- A page of the turns of a person's chat, found by the chat and not by the id.
WITH own AS MATERIALIZED (
    SELECT
        t.id,
        t.instance,
        t.jid,
        t.user_message_id,
        t.reply_id,
        CAST(t.cut_reply_ids AS text[]) AS cut_reply_ids,
        t.runs,
        t.state,
        t.error,
        t.created_at,
        t.ended_at
    FROM viva.whatsapp_turns AS t
    WHERE
        t.instance = :instance
        AND t.jid = :jid
        AND t.id > CAST(:after_id AS uuid)
)

SELECT *
FROM own
ORDER BY id
LIMIT :batch;

-- name: export_sends
-- What was sent, or is to be, in turns.
SELECT
    o.id,
    o.turn_id,
    o.instance,
    o.jid,
    o.seq,
    o.text,
    o.state,
    o.error,
    o.attempts,
    o.message_id,
    o.receipt,
    o.created_at,
    o.sent_at
FROM viva.outbox AS o
WHERE o.turn_id = ANY(CAST(:turn_ids AS uuid[]))
ORDER BY o.seq;

-- name: export_chats
-- The state of a person's chats.
SELECT c.instance, c.jid, c.due_at, c.latest_at, c.paused_until, c.paused_by
FROM viva.whatsapp_chats AS c
WHERE c.instance = :instance AND c.jid = ANY(CAST(:jids AS text[]))
ORDER BY c.jid;

-- name: remove_whatsapp_messages
-- Some messages of a person's chats; not of a turn that has just begun.
DELETE FROM viva.whatsapp_messages
WHERE
    ctid = ANY(
        ARRAY(
            SELECT m.ctid
            FROM viva.whatsapp_messages AS m
            WHERE
                m.instance = :instance
                AND m.jid = ANY(CAST(:jids AS text[]))
                AND (
                    m.why_not IS NOT NULL
                    OR (
                        SELECT t.state
                        FROM viva.whatsapp_turns AS t
                        WHERE t.id = m.turn_id
                    ) <> 'running'
                )
            LIMIT :batch
        )
    );

-- name: remove_turns
-- Some turns of a person's chats, with what was sent. A message would wait again that
-- lost its turn: those go before.
DELETE FROM viva.whatsapp_turns
WHERE
    ctid = ANY(
        ARRAY(
            SELECT t.ctid
            FROM viva.whatsapp_turns AS t
            WHERE
                t.instance = :instance
                AND t.jid = ANY(CAST(:jids AS text[]))
                AND t.state <> 'running'
                AND NOT EXISTS (
                    SELECT FROM viva.whatsapp_messages AS m WHERE m.turn_id = t.id
                )
            LIMIT :batch
        )
    );

-- name: remove_chats
-- A person's chats, but not one with a message that came just now.
DELETE FROM viva.whatsapp_chats AS c
WHERE
    c.instance = :instance
    AND c.jid = ANY(CAST(:jids AS text[]))
    AND c.owner IS NULL
    AND NOT EXISTS (
        SELECT FROM viva.whatsapp_messages AS m
        WHERE m.instance = c.instance AND m.jid = c.jid
    );

-- name: forget_lids
-- That addresses are one person's; the next message tells it again.
DELETE FROM viva.whatsapp_lids
WHERE
    ctid = ANY(
        ARRAY(
            SELECT l.ctid
            FROM viva.whatsapp_lids AS l
            WHERE l.instance = :instance AND l.jid = ANY(CAST(:jids AS text[]))
            UNION ALL
            SELECT l.ctid
            FROM viva.whatsapp_lids AS l
            WHERE l.instance = :instance AND l.lid = ANY(CAST(:jids AS text[]))
        )
    );

-- name: remove_old_turns
-- Old finished turns, with what was sent, in a stretch of all of them.
WITH looked AS (
    SELECT id, state, ended_at
    FROM viva.whatsapp_turns
    WHERE id > CAST(:after_id AS uuid)
    ORDER BY id
    LIMIT :batch
),

removed AS (
    DELETE FROM viva.whatsapp_turns AS t
    USING looked AS l
    WHERE
        t.id = l.id
        AND l.state <> 'running'
        AND t.state <> 'running'
        AND l.ended_at < clock_timestamp() - make_interval(secs => :old_seconds)
        AND NOT EXISTS (
            SELECT FROM viva.whatsapp_messages AS m WHERE m.turn_id = t.id
        )
    RETURNING t.id
)

SELECT
    (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last_id,
    (SELECT count(*) FROM removed) AS removed;

-- name: remove_idle_chats
-- Some chats in which nothing is left to be done or told.
DELETE FROM viva.whatsapp_chats
WHERE
    ctid = ANY(
        ARRAY(
            SELECT c.ctid
            FROM viva.whatsapp_chats AS c
            WHERE
                c.owner IS NULL
                AND c.due_at IS NULL
                AND COALESCE(c.paused_until, '-infinity') < clock_timestamp()
                AND NOT EXISTS (
                    SELECT FROM viva.whatsapp_messages AS m
                    WHERE m.instance = c.instance AND m.jid = c.jid
                )
                AND NOT EXISTS (
                    SELECT FROM viva.whatsapp_turns AS t
                    WHERE t.instance = c.instance AND t.jid = c.jid
                )
            LIMIT :batch
            FOR UPDATE SKIP LOCKED
        )
    );

-- name: remove_idle_lids
-- Some lids of which there is neither chat nor session.
DELETE FROM viva.whatsapp_lids
WHERE
    ctid = ANY(
        ARRAY(
            SELECT l.ctid
            FROM viva.whatsapp_lids AS l
            WHERE
                NOT EXISTS (
                    SELECT FROM viva.whatsapp_chats AS c
                    WHERE c.instance = l.instance AND c.jid IN (l.jid, l.lid)
                )
                AND NOT EXISTS (
                    SELECT FROM viva.sessions AS s
                    WHERE
                        s.channel = 'whatsapp'
                        AND s.person IN (
                            l.instance || '/' || split_part(l.jid, '@', 1),
                            l.instance || '/' || l.lid
                        )
                )
            LIMIT :batch
        )
    );
