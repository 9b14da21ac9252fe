-- name: add_webhooks
-- Stores a batch of deliveries; a key that is there counts one more. Safe to repeat: an id never counts twice.
INSERT INTO viva.inbox AS known (
    id, dedupe_key, instance, event, is_known, kind, answer, trusted, chat,
    message_id, tail, headers, form, body, received_at, deliveries
)
SELECT
    id, decode(dedupe_key, 'hex'), instance, event, is_known, kind, answer, trusted, chat,
    message_id, tail, headers, form, body,
    clock_timestamp() - waited * interval '1 second', deliveries
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:dedupe_keys AS text[]), CAST(:instances AS text[]),
    CAST(:events AS text[]), CAST(:are_known AS boolean[]), CAST(:kinds AS text[]),
    CAST(:answers AS boolean[]), CAST(:are_trusted AS boolean[]),
    CAST(:chats AS text[]), CAST(:message_ids AS text[]), CAST(:tails AS text[]),
    CAST(CAST(:headers AS text[]) AS jsonb[]), CAST(CAST(:forms AS text[]) AS jsonb[]),
    CAST(CAST(:bodies AS text[]) AS jsonb[]), CAST(:waited AS double precision[]),
    CAST(:deliveries AS integer[])
) AS delivered (
    id, dedupe_key, instance, event, is_known, kind, answer, trusted, chat,
    message_id, tail, headers, form, body, waited, deliveries
)
-- Two processes that store the same keys lock them in one order.
ORDER BY dedupe_key
ON CONFLICT (dedupe_key) DO UPDATE SET
    deliveries = known.deliveries
        + CASE WHEN known.id = excluded.id THEN 0 ELSE excluded.deliveries END,
    redelivered_at = CASE
        WHEN known.id = excluded.id OR cardinality(known.redelivered_at) >= 32
            THEN known.redelivered_at
        ELSE known.redelivered_at || excluded.received_at
    END,
    trusted = known.trusted OR excluded.trusted
RETURNING CAST(id AS text) AS id, encode(dedupe_key, 'hex') AS dedupe_key
