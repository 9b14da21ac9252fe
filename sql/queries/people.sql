-- All that is stored of one person: exported, erased.

-- name: measure_person
-- How much there is, for a progress bar.
SELECT count(*) AS sessions, COALESCE(sum(message_count), 0) AS messages
FROM viva.sessions
WHERE channel = :channel AND person = :person;

-- name: measure_all
-- How many sessions and deliveries there are of all people, for a progress bar.
SELECT
    (SELECT count(*) FROM viva.sessions) AS sessions,
    (SELECT count(*) FROM viva.inbox) AS deliveries;

-- name: find_addresses
-- A person's jids: those given, their phones, and the lids of these.
WITH phones AS (
    SELECT given.jid FROM unnest(CAST(:jids AS text[])) AS given (jid)
    UNION
    SELECT l.jid
    FROM viva.whatsapp_lids AS l
    WHERE l.instance = :instance AND l.lid = ANY(CAST(:jids AS text[]))
)

SELECT p.jid FROM phones AS p
UNION
SELECT l.lid
FROM phones AS p
INNER JOIN viva.whatsapp_lids AS l ON l.instance = :instance AND l.jid = p.jid
UNION
-- What nobody vouches for is learned nowhere else.
SELECT i.form ->> 'lid'
FROM phones AS p
INNER JOIN viva.inbox AS i ON i.instance = :instance AND i.chat = p.jid
WHERE i.form ->> 'lid' IS NOT NULL;

-- name: export_sessions
-- A page of a person's sessions, the longest without activity first.
SELECT
    id,
    channel,
    person,
    mode,
    title,
    message_count,
    created_at,
    updated_at,
    last_message_at
FROM viva.sessions
WHERE
    channel = :channel
    AND person = :person
    AND (updated_at, id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS uuid))
ORDER BY updated_at, id
LIMIT :batch;

-- name: export_messages
-- A page of a session's messages, replaced replies first, then oldest first; a live
-- reply with its text so far.
SELECT
    m.session_id,
    m.seq,
    m.id,
    m.role,
    CASE
        WHEN m.status = 'streaming' THEN viva.journal_text(m.id, 0)
        ELSE m.content
    END AS content,
    m.mode,
    m.attachments,
    m.meta,
    m.status,
    m.finish_reason,
    m.error_code,
    m.error_is_final,
    m.created_at,
    m.replaced_seq
FROM viva.messages AS m
WHERE m.session_id = CAST(:session_id AS uuid) AND m.seq > :after_seq
ORDER BY m.seq
LIMIT :batch;

-- name: export_keys
-- A page of a person's idempotency keys.
SELECT channel, person, key, encode(body_sha256, 'hex') AS body_sha256, message_id
FROM viva.idempotency_keys
WHERE channel = :channel AND person = :person AND key > :after_key
ORDER BY key
LIMIT :batch;

-- name: look_for_deliveries
-- A stretch of the inbox: which are of a person's chats, or its messages in groups?
SELECT
    id,
    COALESCE(
        instance = :instance
        AND (
            chat = ANY(CAST(:jids AS text[]))
            OR form ->> 'sender' = ANY(CAST(:jids AS text[]))
        ),
        FALSE
    ) AS is_found
FROM viva.inbox
WHERE id > CAST(:after_id AS uuid)
ORDER BY id
LIMIT :batch;

-- name: export_deliveries
-- Deliveries by id, as they are stored.
SELECT
    id,
    instance,
    event,
    kind,
    answer,
    trusted,
    chat,
    message_id,
    tail,
    headers,
    form,
    body,
    received_at,
    deliveries,
    redelivered_at
FROM viva.inbox
WHERE id = ANY(CAST(:ids AS uuid[]))
ORDER BY id;

-- name: request_ends
-- Ask the owners of a person's live replies to end them; touches what is still live.
UPDATE viva.live_replies
SET end_requested = COALESCE(end_requested, 'stopped')
WHERE channel = :channel AND person = :person;

-- name: lock_next_session
-- One of a person's sessions; every new message is kept out of it from now on.
SELECT id
FROM viva.sessions
WHERE channel = :channel AND person = :person
ORDER BY updated_at, id
LIMIT 1
FOR UPDATE;

-- name: find_seqs
-- The lowest and the highest seq of a session; 1 and 0 when it has no message.
SELECT COALESCE(min(seq), 1) AS first_seq, COALESCE(max(seq), 0) AS last_seq
FROM viva.messages
WHERE session_id = CAST(:session_id AS uuid);

-- name: remove_messages
-- A stretch of a locked session's messages, with their keys.
DELETE FROM viva.messages
WHERE
    session_id = CAST(:session_id AS uuid)
    AND seq > :after_seq
    AND seq <= :after_seq + :batch;

-- name: remove_keys
-- Some of a person's idempotency keys.
DELETE FROM viva.idempotency_keys
WHERE
    ctid = ANY(
        ARRAY(
            SELECT k.ctid
            FROM viva.idempotency_keys AS k
            WHERE k.channel = :channel AND k.person = :person
            ORDER BY k.key
            LIMIT :batch
        )
    );

-- name: empty_deliveries
-- Take the content out of what names a person in a stretch of the inbox; keys stay.
WITH looked AS (
    SELECT id
    FROM viva.inbox
    WHERE id > CAST(:after_id AS uuid)
    ORDER BY id
    LIMIT :batch
),

found AS (
    SELECT
        i.id,
        i.form ->> 'sender' = ANY(CAST(:jids AS text[])) AS is_author
    FROM viva.inbox AS i
    WHERE
        i.id = ANY(ARRAY(SELECT id FROM looked))
        AND i.instance = :instance
        AND (
            i.chat = ANY(CAST(:jids AS text[]))
            -- Of others: groups, batches, receipts, but no message that waits for an
            -- answer, which is its author's own.
            OR (
                NOT (i.answer AND i.chat IS NOT NULL)
                AND (
                    CAST(i.form AS text) ~ CAST(:numbers AS text)
                    OR CAST(i.body AS text) ~ CAST(:numbers AS text)
                )
            )
        )
),

-- What the person said in groups; its own chats are removed as wholes.
forgotten AS (
    DELETE FROM viva.whatsapp_messages AS m USING found AS f
    WHERE
        f.is_author
        AND m.inbox_id = f.id
        AND m.jid <> ALL(CAST(:jids AS text[]))
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
        body = '{}',
        erased_at = clock_timestamp()
    FROM found AS f
    WHERE i.id = f.id
    RETURNING i.id
)

SELECT
    (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last_id,
    (SELECT count(*) FROM looked) AS looked,
    (SELECT count(*) FROM emptied) AS emptied;
