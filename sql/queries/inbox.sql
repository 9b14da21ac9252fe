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
SELECT instance FROM found WHERE instance > '' LIMIT :most

-- name: seconds_since_webhook
-- How long ago the last delivery came, by the database's clock; NULL: there was none.
SELECT CAST(extract(epoch FROM clock_timestamp() - max(received_at)) AS double precision)
    AS seconds
FROM viva.inbox

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
) AS found
