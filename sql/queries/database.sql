-- Of the database itself: its connections, its settings.

-- name: prepare_connection
-- One round trip after each connect; libpq's "options" would be refused by PgBouncer.
SELECT
    set_config(
        'synchronous_commit',
        CASE current_setting('synchronous_commit')
            WHEN 'remote_apply' THEN 'remote_apply' -- stronger than on
            ELSE 'on'
        END,
        false
    ),
    set_config('statement_timeout', CAST(:statement_timeout_ms AS text), false),
    set_config('lock_timeout', CAST(:lock_timeout_ms AS text), false),
    set_config(
        'idle_in_transaction_session_timeout',
        CAST(:idle_in_transaction_ms AS text),
        false
    ),
    set_config('TimeZone', 'UTC', false),
    -- All we run are look-ups and short ordered ranges of what is in memory. While a
    -- table is not analyzed, the defaults read and sort a whole session for its newest
    -- messages, read the journal to close a reply, and compile for longer than they run.
    -- A plan that is kept must not read whole what was small when it was made.
    set_config('enable_bitmapscan', 'off', false),
    set_config('random_page_cost', '1.1', false),
    set_config('enable_seqscan', 'off', false),
    set_config('jit', 'off', false),
    -- A server that cannot watch its clients' sockets refuses any value but 0.
    CASE
        WHEN current_setting('client_connection_check_interval', true) IS NOT NULL
            AND version() LIKE '%linux%'
            THEN set_config(
                'client_connection_check_interval',
                CAST(:client_check_ms AS text),
                false
            )
    END;

-- name: server_facts
-- What the promise that a committed reply stays rests on.
SELECT
    CAST(current_setting('server_version_num') AS integer) AS version,
    current_setting('server_encoding') AS encoding,
    CAST(current_setting('fsync') AS boolean) AS fsync,
    current_setting('synchronous_commit') AS synchronous_commit;

-- name: backend
-- Which process of the server this connection talks to.
SELECT pg_backend_pid() AS pid;

-- name: server_settings
-- What an operator may have set, and the clock.
SELECT
    CAST(current_setting('full_page_writes') AS boolean) AS full_page_writes,
    CAST(current_setting('max_connections') AS integer)
    - CAST(current_setting('superuser_reserved_connections') AS integer)
        AS max_connections,
    (
        SELECT count(*) FROM pg_stat_activity AS a
        WHERE a.backend_type = 'client backend'
    ) AS connections,
    clock_timestamp() AS now;
