-- Sessions and their messages, as people read them.

-- name: add_session
-- Make a new session for a person.
INSERT INTO viva.sessions (id, channel, person, mode)
VALUES (CAST(:session_id AS uuid), :channel, :person, :mode);

-- name: add_first_session
-- Make a session unless the person has one by now (two first messages at once).
SELECT pg_advisory_xact_lock(hashtextextended(:channel || '/' || :person, 0));

INSERT INTO viva.sessions (id, channel, person, mode)
SELECT CAST(:session_id AS uuid), :channel, :person, :mode
WHERE
    NOT EXISTS (
        SELECT FROM viva.sessions AS s
        WHERE s.channel = :channel AND s.person = :person
    );

-- name: find_session
-- A person's session by id.
SELECT id, mode
FROM viva.sessions
WHERE id = CAST(:session_id AS uuid) AND channel = :channel AND person = :person;

-- name: find_newest_session
-- A person's newest session.
SELECT id, mode
FROM viva.sessions
WHERE channel = :channel AND person = :person
ORDER BY updated_at DESC, id DESC
LIMIT 1;

-- name: load_messages
-- The newest messages below a seq, newest first; a live reply with its text so far.
SELECT
    m.id,
    m.seq,
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
    m.created_at
FROM viva.messages AS m
WHERE
    m.session_id = CAST(:session_id AS uuid)
    AND m.seq > 0
    AND m.seq < COALESCE(:before_seq, 2147483647)
ORDER BY m.seq DESC
LIMIT :messages;

-- name: load_message
-- One message as it stands in a snapshot.
SELECT
    m.id,
    COALESCE(m.replaced_seq, m.seq) AS seq,
    m.role,
    m.content,
    m.mode,
    m.attachments,
    m.meta,
    m.status,
    m.finish_reason,
    m.created_at
FROM viva.messages AS m
WHERE m.id = CAST(:message_id AS uuid);

-- name: list_sessions
-- One page of a person's sessions, newest first.
SELECT
    id,
    mode,
    title,
    channel,
    message_count,
    created_at,
    updated_at,
    last_message_at
FROM viva.sessions
WHERE channel = :channel AND person = :person
ORDER BY updated_at DESC, id DESC
LIMIT :page_size OFFSET :skipped;

-- name: count_sessions
-- How many sessions a person has.
SELECT count(*) AS total
FROM viva.sessions
WHERE channel = :channel AND person = :person;

-- name: lock_session
-- Keep every new message out of a session for the rest of the transaction.
SELECT s.id
FROM viva.sessions AS s
WHERE
    s.id = CAST(:session_id AS uuid)
    AND s.channel = :channel
    AND s.person = :person
FOR UPDATE;

-- name: find_live_reply
-- The live reply of a session, if there is one.
SELECT message_id, owner
FROM viva.live_replies
WHERE session_id = CAST(:session_id AS uuid);

-- name: delete_session
-- Delete a session with its messages and their keys.
DELETE FROM viva.sessions WHERE id = CAST(:session_id AS uuid);
