-- What an operator looks at. Each query is bounded, however much is stored.

-- name: show_processes
-- Processes that have not left in order, the newest first; the dead stay for a day.
SELECT
    p.id,
    p.version,
    p.host,
    p.pid,
    p.started_at,
    CAST(
        GREATEST(extract(EPOCH FROM clock_timestamp() - p.beat_at), 0)
        AS double precision
    ) AS silent_seconds,
    p.dead_at,
    p.dead_by,
    p.verdict,
    p.readers,
    (
        SELECT CAST(count(*) AS integer) FROM viva.live_replies AS l
        WHERE l.owner = p.id
    ) AS live_replies
FROM viva.processes AS p
ORDER BY p.started_at DESC, p.id
LIMIT :rows;

-- name: show_replies
-- The live replies that have run longest (their ids tell), and who reads them.
SELECT
    l.message_id AS id,
    l.channel,
    l.owner AS process_id,
    m.created_at,
    COALESCE(j.chars, 0) AS chars,
    l.left_at,
    (
        SELECT CAST(count(*) AS integer) FROM viva.far_readers AS f
        INNER JOIN viva.processes AS p ON p.id = f.process_id AND p.dead_at IS NULL
        WHERE f.message_id = l.message_id
    ) AS far_processes
FROM (
    SELECT * FROM viva.live_replies ORDER BY message_id LIMIT :rows
) AS l
INNER JOIN viva.messages AS m ON m.id = l.message_id
LEFT JOIN LATERAL (
    SELECT t.start + length(t.text) AS chars
    FROM viva.journal AS t
    WHERE t.message_id = l.message_id
    ORDER BY t.start DESC
    LIMIT 1
) AS j ON TRUE
ORDER BY l.message_id;

-- name: count_work
-- What waits, runs or is dead now, each counted up to a limit, in an index; the clock.
SELECT
    clock_timestamp() AS now,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.whatsapp_chats
            WHERE owner IS NULL AND due_at <= now()
            ORDER BY due_at LIMIT :most
        ) AS counted
    ) AS turns_due,
    (
        SELECT due_at FROM viva.whatsapp_chats
        WHERE owner IS NULL AND due_at <= now()
        ORDER BY due_at LIMIT 1
    ) AS turns_due_since,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.whatsapp_chats
            WHERE owner IS NULL AND due_at > now()
            ORDER BY due_at LIMIT :most
        ) AS counted
    ) AS turns_later,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.whatsapp_chats WHERE owner IS NOT NULL LIMIT :most
        ) AS counted
    ) AS turns_running,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.outbox WHERE state = 'waiting'
            ORDER BY due_at LIMIT :most
        ) AS counted
    ) AS parts_waiting,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.inbox WHERE is_pending
            ORDER BY received_at LIMIT :most
        ) AS counted
    ) AS news_waiting,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.whatsapp_turns WHERE state = 'dead'
            ORDER BY ended_at LIMIT :most
        ) AS counted
    ) AS dead_turns,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.outbox WHERE state IN ('dead', 'unknown')
            ORDER BY created_at LIMIT :most
        ) AS counted
    ) AS dead_parts,
    (
        SELECT CAST(count(*) AS integer) FROM (
            SELECT FROM viva.inbox WHERE problem IS NOT NULL
            ORDER BY received_at LIMIT :most
        ) AS counted
    ) AS dead_news;

-- name: count_webhooks
-- The events of some minutes (since 1970), of each minute the first ones up to a limit.
SELECT
    g.minute,
    s.event,
    CAST(count(*) AS integer) AS webhooks
FROM unnest(CAST(:minutes AS integer[])) AS g (minute)
CROSS JOIN LATERAL (
    SELECT left(i.event, 100) AS event
    FROM viva.inbox AS i
    WHERE
        i.received_at >= to_timestamp(CAST(g.minute AS bigint) * 60)
        AND i.received_at < to_timestamp(CAST(g.minute AS bigint) * 60 + 60)
    ORDER BY i.received_at
    LIMIT :most
) AS s
GROUP BY g.minute, s.event;

-- name: find_newest_messages
-- The newest messages of people on WhatsApp: the ids of their deliveries tell.
SELECT m.instance, m.message_id
FROM viva.whatsapp_messages AS m
ORDER BY m.inbox_id DESC
LIMIT :rows;

-- name: find_messages_of_phone
-- The newest messages of a phone, under whatever address it wrote to which instance.
WITH given AS (
    SELECT i.instance, j.jid
    FROM unnest(CAST(:instances AS text[])) AS i (instance)
    CROSS JOIN unnest(CAST(:jids AS text[])) AS j (jid)
),

chats AS (
    SELECT g.instance, g.jid FROM given AS g
    UNION
    SELECT l.instance, l.lid
    FROM given AS g
    INNER JOIN viva.whatsapp_lids AS l ON l.instance = g.instance AND l.jid = g.jid
    UNION
    SELECT l.instance, l.jid
    FROM given AS g
    INNER JOIN viva.whatsapp_lids AS l ON l.instance = g.instance AND l.lid = g.jid
)

SELECT found.instance, found.message_id
FROM chats AS c
CROSS JOIN LATERAL (
    SELECT m.instance, m.message_id, m.sent_at
    FROM viva.whatsapp_messages AS m
    WHERE m.instance = c.instance AND m.jid = c.jid
    ORDER BY m.sent_at DESC
    LIMIT :rows
) AS found
ORDER BY found.sent_at DESC
LIMIT :rows;

-- name: show_messages
-- How far messages have come, in the order in which they are named; no content.
SELECT
    m.message_id,
    left(m.instance, 100) AS instance,
    m.jid AS chat,
    m.kind,
    m.sent_at,
    CASE
        WHEN m.why_not IS NOT NULL THEN 'skipped'
        WHEN t.id IS NULL THEN 'waiting'
        WHEN t.state = 'dead' THEN 'dead'
        WHEN t.state = 'running' THEN 'running'
        ELSE COALESCE(o.state, 'answered')
    END AS state,
    COALESCE(m.why_not, t.error, o.error) AS reason,
    o.receipt
FROM unnest(
    CAST(:instances AS text[]), CAST(:message_ids AS text[])
) WITH ORDINALITY AS g (instance, message_id, place)
INNER JOIN viva.whatsapp_messages AS m
    ON m.message_id = g.message_id AND m.instance = g.instance
LEFT JOIN viva.whatsapp_turns AS t ON t.id = m.turn_id
LEFT JOIN LATERAL (
    -- Of the parts of an answer the one that went worst.
    SELECT p.state, p.error, p.receipt
    FROM viva.outbox AS p
    WHERE p.turn_id = m.turn_id
    ORDER BY
        array_position(
            ARRAY['dead', 'unknown', 'dropped', 'sending', 'waiting', 'sent'], p.state
        ),
        p.receipt_rank,
        p.seq
    LIMIT 1
) AS o ON TRUE
ORDER BY g.place;

-- name: show_dead
-- A page of list_dead, the newest first, each with a message to trace it by.
WITH dead AS (
    (
        SELECT
            t.id,
            'turn' AS kind,
            t.instance,
            t.jid AS chat,
            t.state,
            t.error AS reason,
            t.ended_at AS since,
            t.id AS turn_id,
            NULL AS message_id
        FROM viva.whatsapp_turns AS t
        WHERE
            t.state = 'dead'
            AND t.ended_at <= CAST(:before_at AS timestamptz)
            AND (t.ended_at, t.id)
            < (CAST(:before_at AS timestamptz), CAST(:before_id AS uuid))
        ORDER BY t.ended_at DESC, t.id DESC
        LIMIT :rows
    )
    UNION ALL
    (
        SELECT
            o.id,
            'send' AS kind,
            o.instance,
            o.jid AS chat,
            o.state,
            o.error AS reason,
            o.created_at AS since,
            o.turn_id,
            o.message_id
        FROM viva.outbox AS o
        WHERE
            o.state IN ('dead', 'unknown')
            AND o.created_at <= CAST(:before_at AS timestamptz)
            AND (o.created_at, o.id)
            < (CAST(:before_at AS timestamptz), CAST(:before_id AS uuid))
        ORDER BY o.created_at DESC, o.id DESC
        LIMIT :rows
    )
    UNION ALL
    (
        SELECT
            i.id,
            'event' AS kind,
            i.instance,
            i.chat,
            'dead' AS state,
            i.problem AS reason,
            i.received_at AS since,
            NULL AS turn_id,
            i.message_id
        FROM viva.inbox AS i
        WHERE
            i.problem IS NOT NULL
            AND i.received_at <= CAST(:before_at AS timestamptz)
            AND (i.received_at, i.id)
            < (CAST(:before_at AS timestamptz), CAST(:before_id AS uuid))
        ORDER BY i.received_at DESC, i.id DESC
        LIMIT :rows
    )
    ORDER BY since DESC, id DESC
    LIMIT :rows
)

SELECT
    d.id,
    d.kind,
    left(d.instance, 100) AS instance,
    d.chat,
    d.state,
    left(d.reason, 500) AS reason,
    d.since,
    COALESCE(
        d.message_id,
        (
            SELECT m.message_id FROM viva.whatsapp_messages AS m
            WHERE m.turn_id = d.turn_id
            ORDER BY m.sent_at
            LIMIT 1
        )
    ) AS message_id
FROM dead AS d
ORDER BY d.since DESC, d.id DESC;

-- name: find_dead_turn
-- Whether a turn is dead still.
SELECT t.id FROM viva.whatsapp_turns AS t
WHERE t.id = CAST(:turn_id AS uuid) AND t.state = 'dead';
