-- The whole way of one message, for the operator.

-- name: trace_deliveries
-- Every event that named a message, in the order in which they came.
SELECT
    i.instance,
    i.event,
    i.kind,
    i.trusted,
    i.received_at,
    i.deliveries,
    i.redelivered_at,
    i.form ->> 'status_value' AS receipt,
    i.problem
FROM viva.inbox AS i
WHERE i.message_id = :message_id
ORDER BY i.received_at, i.id;

-- name: trace_messages
-- A person's message and its turn.
SELECT
    m.instance,
    m.kind,
    m.sent_at,
    i.received_at AS stored_at,
    m.why_not,
    m.edited_at,
    m.deleted_at,
    t.id AS turn_id
FROM viva.whatsapp_messages AS m
INNER JOIN viva.inbox AS i ON i.id = m.inbox_id
LEFT JOIN viva.whatsapp_turns AS t ON t.id = m.turn_id
WHERE m.message_id = :message_id
ORDER BY m.instance;

-- name: trace_turns
-- Turns that answered a message, or sent it.
SELECT
    t.id,
    t.state,
    t.runs,
    t.error,
    t.created_at,
    t.ended_at,
    CAST(array_remove(t.cut_reply_ids || t.reply_id, NULL) AS text[]) AS reply_ids
FROM viva.whatsapp_turns AS t
WHERE t.id = ANY(CAST(:turn_ids AS uuid[]))
ORDER BY t.created_at;

-- name: trace_replies
-- A turn's replies, each run one.
SELECT
    m.id,
    m.status,
    m.finish_reason,
    m.error_code,
    m.created_at,
    length(m.content) AS chars
FROM viva.messages AS m
WHERE m.id = ANY(CAST(:message_ids AS uuid[]))
ORDER BY m.seq;

-- name: trace_sends
-- What was sent in turns, or under an id.
SELECT
    o.id,
    o.turn_id,
    o.state,
    o.error,
    o.message_id,
    o.receipt,
    o.attempts,
    o.created_at,
    o.sent_at,
    ARRAY(
        SELECT
            jsonb_build_object(
                'receipt', i.form ->> 'status_value', 'at', i.received_at
            )
        FROM viva.inbox AS i
        WHERE
            i.message_id = o.message_id
            AND i.instance = o.instance
            AND i.kind = 'status'
        ORDER BY i.received_at
    ) AS receipts
FROM viva.outbox AS o
WHERE o.turn_id = ANY(CAST(:turn_ids AS uuid[]))
ORDER BY o.seq;

-- name: find_turns_of_sent
-- The turns that sent a message of this id.
SELECT DISTINCT o.turn_id
FROM viva.outbox AS o
WHERE o.message_id = :message_id;
