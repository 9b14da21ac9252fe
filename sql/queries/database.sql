-- name: prepare_connection
-- One round trip after each connect; libpq's "options" would be refused by PgBouncer
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
-- What the promise that a committed reply stays rests on
SELECT
    CAST(current_setting('server_version_num') AS integer) AS version,
    current_setting('server_encoding') AS encoding,
    CAST(current_setting('fsync') AS boolean) AS fsync,
    current_setting('synchronous_commit') AS synchronous_commit;
