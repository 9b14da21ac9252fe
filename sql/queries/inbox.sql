-- name: add_webhooks
-- Stores a batch of deliveries; a key that is there counts one more. Safe to repeat: an id never counts twice.
INSERT INTO viva.inbox AS known (
    id, dedupe_key, instance, event, is_known, kind, answer, trusted, chat,
    message_id, tail, headers, form, body, received_at, deliveries
)
SELECT
    CAST(d.fields ->> 0 AS uuid),
    decode(d.fields ->> 1, 'hex') AS dedupe_key,
    d.fields ->> 2,
    d.fields ->> 3,
    CAST(d.fields ->> 4 AS boolean),
    d.fields ->> 5,
    CAST(d.fields ->> 6 AS boolean),
    CAST(d.fields ->> 7 AS boolean),
    d.fields ->> 8,
    d.fields ->> 9,
    d.fields ->> 10,
    CAST(d.fields -> 11 AS jsonb),
    CAST(d.fields -> 12 AS jsonb),
    CAST(d.fields -> 13 AS jsonb),
    clock_timestamp() - CAST(d.fields ->> 14 AS double precision) * interval '1 second',
    CAST(d.fields ->> 15 AS integer)
FROM json_array_elements(CAST(:deliveries AS json)) AS d (fields)
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
