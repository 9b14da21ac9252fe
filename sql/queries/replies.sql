-- A reply's life: found, started, written ahead, closed, followed from elsewhere.

-- name: find_turn
-- All that decides what a new message of a person does, in one look.
WITH wanted AS (
    (
        SELECT s.id, s.message_count
        FROM viva.sessions AS s
        WHERE
            s.id = CAST(:session_id AS uuid)
            AND s.channel = :channel
            AND s.person = :person
    )
    UNION ALL
    (
        SELECT s.id, s.message_count
        FROM viva.sessions AS s
        WHERE
            CAST(:session_id AS uuid) IS NULL
            AND s.channel = :channel
            AND s.person = :person
            AND CAST(:replaces AS uuid) IS NULL
        ORDER BY s.updated_at DESC, s.id DESC
        LIMIT 1
    )
    UNION ALL
    (
        SELECT s.id, s.message_count
        FROM viva.messages AS m
        INNER JOIN viva.sessions AS s ON s.id = m.session_id
        WHERE
            m.id = CAST(:replaces AS uuid)
            AND m.role = 'assistant'
            AND s.channel = :channel
            AND s.person = :person
    )
)

SELECT
    w.id AS session_id,
    w.message_count,
    newest.id AS newest_id,
    newest.role AS newest_role,
    newest.status AS newest_status,
    asked.id AS user_message_id,
    asked.content = :content AS same_text,
    live.message_id AS live_id,
    live.left_at IS NULL
    OR EXISTS (
        SELECT FROM viva.far_readers AS f
        INNER JOIN viva.processes AS p ON p.id = f.process_id AND p.dead_at IS NULL
        WHERE f.message_id = live.message_id
    ) AS live_is_read,
    k.message_id AS key_message_id,
    k.body_sha256 = CAST(:body_sha256 AS bytea) AS same_body,
    live.owner AS live_owner
FROM (VALUES (1)) AS one
LEFT JOIN wanted AS w ON TRUE
LEFT JOIN viva.messages AS newest
    ON newest.session_id = w.id AND newest.seq = w.message_count
LEFT JOIN LATERAL (
    SELECT m.id, m.content
    FROM viva.messages AS m
    WHERE m.session_id = w.id AND m.role = 'user'
    ORDER BY m.seq DESC
    LIMIT 1
) AS asked ON TRUE
LEFT JOIN viva.live_replies AS live ON live.session_id = w.id
LEFT JOIN viva.idempotency_keys AS k
    ON k.channel = :channel AND k.person = :person AND k.key = :key;

-- name: start_reply
-- Store the user's message and the reply's row, if nothing has happened since find_turn.
-- A reply that it replaces makes room: it gets a seq below all others of the session.
SELECT pg_advisory_xact_lock(hashtextextended(:channel || '/' || :person, 0));

WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

live AS (
    SELECT count(*) AS replies FROM viva.live_replies
    WHERE channel = :channel AND person = :person
),

session AS (
    UPDATE viva.sessions
    SET
        message_count = message_count + CASE
            WHEN :ask THEN 2
            WHEN CAST(:replaces AS uuid) IS NULL THEN 1
            ELSE 0
        END,
        title = COALESCE(title, :title),
        (updated_at, last_message_at) = (SELECT t, t FROM clock_timestamp() AS t)
    WHERE
        id = CAST(:session_id AS uuid)
        AND message_count = :expected_count
        AND EXISTS (SELECT FROM me)
        AND (SELECT live.replies FROM live) < :live_limit
    RETURNING id, message_count, mode
),

question AS (
    INSERT INTO viva.messages
    (session_id, seq, id, role, content, mode, meta, status)
    SELECT
        s.id,
        s.message_count - 1,
        CAST(:user_message_id AS uuid),
        'user',
        :content,
        COALESCE(:mode, s.mode),
        CAST(:meta AS jsonb),
        'complete'
    FROM session AS s
    WHERE :ask
),

-- Nothing is moved if it is not the newest any more; its seq is taken then.
replaced AS (
    UPDATE viva.messages AS m
    SET
        seq = LEAST(0, (
            SELECT min(each.seq) FROM viva.messages AS each
            WHERE each.session_id = m.session_id
        )) - 1,
        replaced_seq = m.seq,
        meta = m.meta || jsonb_build_object('replaced_by', CAST(:message_id AS text))
    FROM session AS s
    WHERE m.id = CAST(:replaces AS uuid) AND m.seq = s.message_count
    RETURNING m.mode
),

answer AS (
    INSERT INTO viva.messages (session_id, seq, id, role, content, mode, status)
    SELECT
        s.id,
        s.message_count,
        CAST(:message_id AS uuid),
        'assistant',
        '',
        COALESCE(:mode, r.mode, s.mode),
        'streaming'
    FROM session AS s
    LEFT JOIN replaced AS r ON TRUE
),

started AS (
    INSERT INTO viva.live_replies (message_id, session_id, channel, person, owner)
    SELECT
        CAST(:message_id AS uuid),
        s.id,
        :channel,
        :person,
        me.id
    FROM session AS s, me
),

kept AS (
    INSERT INTO viva.idempotency_keys (channel, person, key, body_sha256, message_id)
    SELECT
        :channel,
        :person,
        :key,
        CAST(:body_sha256 AS bytea),
        CAST(:message_id AS uuid)
    FROM session AS s
    WHERE CAST(:key AS text) IS NOT NULL
)

SELECT
    EXISTS (SELECT FROM me) AS alive,
    live.replies AS live_replies,
    s.message_count,
    COALESCE(:mode, r.mode, s.mode) AS mode
FROM live
LEFT JOIN session AS s ON TRUE
LEFT JOIN replaced AS r ON TRUE;

-- name: load_history
-- What the model sees: the newest stored messages whose status is one of these, within
-- a number of characters, newest first; the newest of them always.
WITH newest AS (
    SELECT m.seq, m.role, m.content
    FROM viva.messages AS m
    WHERE
        m.session_id = CAST(:session_id AS uuid)
        AND m.seq > 0
        AND m.seq < :before_seq
        AND m.status = ANY(CAST(:statuses AS text[]))
    ORDER BY m.seq DESC
    LIMIT :messages
),

counted AS (
    SELECT
        n.seq,
        n.role,
        n.content,
        sum(length(n.content)) OVER newest_first AS chars,
        row_number() OVER newest_first AS place
    FROM newest AS n
    WINDOW newest_first AS (ORDER BY n.seq DESC)
)

SELECT c.role, c.content
FROM counted AS c
WHERE c.chars <= :history_chars OR c.place = 1
ORDER BY c.seq DESC;

-- name: append_chunks, prepared
-- The journal's commit: new text of many replies at once; no row back means fenced.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

added AS (
    INSERT INTO viva.journal (message_id, start, text)
    SELECT
        CAST(c.fields ->> 0 AS uuid),
        CAST(c.fields ->> 1 AS integer),
        c.fields ->> 2
    FROM me, jsonb_array_elements(CAST(:chunks AS jsonb)) AS c (fields)
    ON CONFLICT ON CONSTRAINT journal_pkey DO NOTHING
)

SELECT id FROM me;

-- name: close_replies
-- Text, status and counters of ended replies at once; no row back means fenced.
WITH me AS (
    SELECT id FROM viva.processes
    WHERE id = CAST(:owner AS uuid) AND dead_at IS NULL
    FOR KEY SHARE
),

closed AS (
    UPDATE viva.messages AS m
    SET
        content = c.fields ->> 1,
        status = c.fields ->> 2,
        finish_reason = c.fields ->> 3,
        error_code = c.fields ->> 4,
        error_is_final = CAST(c.fields ->> 5 AS boolean),
        meta = CASE
            WHEN jsonb_typeof(c.fields -> 6) = 'object'
                THEN m.meta || jsonb_build_object('usage', c.fields -> 6)
            ELSE m.meta
        END
    FROM
        me
    CROSS JOIN jsonb_array_elements(CAST(:replies AS jsonb)) AS c (fields)
    INNER JOIN viva.live_replies AS l
        ON l.message_id = CAST(c.fields ->> 0 AS uuid) AND l.owner = me.id
    WHERE m.id = l.message_id
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

-- What was closed before, by a try whose answer was lost, is stored as well. A row that is
-- neither is gone: a failover lost it.
SELECT me.id, s.id AS message_id
FROM me
LEFT JOIN (
    SELECT c.id FROM closed AS c
    UNION ALL
    SELECT m.id
    FROM viva.messages AS m
    WHERE
        m.id = ANY(
            SELECT CAST(c.fields ->> 0 AS uuid)
            FROM jsonb_array_elements(CAST(:replies AS jsonb)) AS c (fields)
        )
        AND m.status <> 'streaming'
) AS s ON TRUE;

-- name: load_reply
-- One reply as stored, of one person; a live one with the text committed so far.
SELECT
    m.id AS message_id,
    m.session_id,
    COALESCE(m.replaced_seq, m.seq) AS seq,
    m.status,
    m.finish_reason,
    m.error_code,
    m.error_is_final,
    s.message_count,
    l.owner,
    CASE
        WHEN m.status = 'streaming' THEN viva.journal_text(m.id, 0)
        ELSE m.content
    END AS text,
    (
        SELECT u.id
        FROM viva.messages AS u
        WHERE
            u.session_id = m.session_id
            AND u.seq < COALESCE(m.replaced_seq, m.seq)
            AND u.role = 'user'
        ORDER BY u.seq DESC
        LIMIT 1
    ) AS user_message_id,
    m.mode
FROM viva.messages AS m
INNER JOIN viva.sessions AS s ON s.id = m.session_id
LEFT JOIN viva.live_replies AS l ON l.message_id = m.id
WHERE
    m.id = CAST(:message_id AS uuid)
    AND m.role = 'assistant'
    AND s.channel = :channel
    AND s.person = :person;

-- name: follow_replies
-- New text and endings of many replies of other processes, from what is known of each.
SELECT
    m.id AS message_id,
    m.status,
    m.finish_reason,
    m.error_code,
    m.error_is_final,
    s.message_count,
    CASE
        WHEN m.status = 'streaming' THEN viva.journal_text(m.id, c.known)
        ELSE substr(m.content, c.known + 1)
    END AS text
FROM
    unnest(
        CAST(:message_ids AS uuid[]), CAST(:known AS integer[])
    ) AS c (message_id, known)
INNER JOIN viva.messages AS m ON m.id = c.message_id
INNER JOIN viva.sessions AS s ON s.id = m.session_id;

-- name: request_end
-- Ask the owner of a live reply to end it; the first wish stays.
UPDATE viva.live_replies
SET end_requested = COALESCE(end_requested, :end_requested)
WHERE message_id = CAST(:message_id AS uuid)
RETURNING owner;

-- name: load_requests
-- What other processes want of this owner's replies: ends asked for, remote readers.
SELECT
    l.message_id,
    l.end_requested,
    EXISTS (
        SELECT FROM viva.far_readers AS f
        INNER JOIN viva.processes AS p ON p.id = f.process_id AND p.dead_at IS NULL
        WHERE f.message_id = l.message_id
    ) AS is_read_remotely
FROM viva.live_replies AS l
WHERE
    l.owner = CAST(:owner AS uuid)
    AND (
        l.end_requested IS NOT NULL
        OR EXISTS (SELECT FROM viva.far_readers AS f WHERE f.message_id = l.message_id)
    );

-- name: mark_left
-- Write which of this owner's replies lost their last reader, and which found one again.
UPDATE viva.live_replies AS l
SET left_at = CASE WHEN e.is_read THEN NULL ELSE clock_timestamp() END
FROM
    unnest(
        CAST(:message_ids AS uuid[]), CAST(:are_read AS boolean[])
    ) AS e (message_id, is_read)
WHERE l.message_id = e.message_id AND l.owner = CAST(:owner AS uuid);

-- name: renew_far_readers
-- Say that this process has readers of these replies of others. The time is read by the
-- version before.
INSERT INTO viva.far_readers (message_id, process_id)
SELECT l.message_id, CAST(:process_id AS uuid)
FROM viva.live_replies AS l
WHERE l.message_id = ANY(CAST(:message_ids AS uuid[]))
ON CONFLICT ON CONSTRAINT far_readers_pkey
DO UPDATE SET seen_at = clock_timestamp();

-- name: remove_far_readers
-- The last reader here has left these replies of others.
DELETE FROM viva.far_readers
WHERE
    process_id = CAST(:process_id AS uuid)
    AND message_id = ANY(CAST(:message_ids AS uuid[]));

-- name: load_owned
-- The live replies that an owner has.
SELECT message_id
FROM viva.live_replies
WHERE owner = CAST(:owner AS uuid);
