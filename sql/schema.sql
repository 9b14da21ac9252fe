-- The whole schema of viva_server, for readers and for new databases of the tests.
-- A live database gets here through migrations/; a test proves both ways equal.
-- Times are the database's clock. Ids are UUIDv7 made by the process that inserts.

CREATE SCHEMA viva;

-- A process that owns replies. Every statement that writes for an owner locks its row
-- FOR KEY SHARE and finds it alive, or writes nothing: that is the fence.
CREATE TABLE viva.processes (
    id uuid CONSTRAINT processes_pkey PRIMARY KEY,
    -- The session-level advisory lock that the process holds while it lives.
    lock_key bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Heartbeat, every 0.5 s.
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Set once, by another process that has closed this one's replies. Never unset.
    dead_at timestamptz
);

-- A person is (channel, person): web and the JWT's sub, or whatsapp and instance/phone.
CREATE TABLE viva.sessions (
    id uuid CONSTRAINT sessions_pkey PRIMARY KEY,
    channel text NOT NULL
        CONSTRAINT sessions_channel_check CHECK (channel IN ('web', 'whatsapp')),
    person text NOT NULL,
    mode text,
    -- The first words of the first message.
    title text,
    -- The highest seq of its messages; the row's lock orders them without a gap.
    message_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Created, or a message stored: what "newest" means.
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_message_at timestamptz
);

CREATE INDEX sessions_newest_idx ON viva.sessions (channel, person, updated_at DESC, id DESC);

CREATE TABLE viva.messages (
    session_id uuid NOT NULL
        CONSTRAINT messages_session_fkey REFERENCES viva.sessions ON DELETE CASCADE,
    -- 1, 2, 3 … within the session.
    seq integer NOT NULL,
    id uuid NOT NULL CONSTRAINT messages_id_key UNIQUE,
    role text NOT NULL
        CONSTRAINT messages_role_check CHECK (role IN ('user', 'assistant')),
    -- Empty while the reply is live: its text is in the journal until it is closed.
    content text NOT NULL,
    mode text,
    attachments jsonb NOT NULL DEFAULT '[]',
    meta jsonb NOT NULL DEFAULT '{}',
    -- streaming -> complete | partial | failed, once; a user's message is complete.
    status text NOT NULL CONSTRAINT messages_status_check
        CHECK (status IN ('streaming', 'complete', 'partial', 'failed')),
    finish_reason text CONSTRAINT messages_finish_reason_check CHECK (
        finish_reason IN (
            'stop', 'length', 'stopped', 'disconnected', 'superseded',
            'shutdown', 'crashed', 'upstream_error', 'limit'
        )
    ),
    -- Why a reply failed, for the error event; a word such as upstream_timeout.
    error_code text,
    -- That asking again will not help; only beside an error_code.
    error_is_final boolean NOT NULL DEFAULT FALSE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT messages_pkey PRIMARY KEY (session_id, seq)
);

-- One row for each reply that is being produced; gone when the reply is closed.
CREATE TABLE viva.live_replies (
    message_id uuid CONSTRAINT live_replies_pkey PRIMARY KEY
        CONSTRAINT live_replies_message_fkey
        REFERENCES viva.messages (id) ON DELETE CASCADE,
    -- One live reply per session.
    session_id uuid NOT NULL CONSTRAINT live_replies_session_key UNIQUE,
    channel text NOT NULL,
    person text NOT NULL,
    owner uuid NOT NULL CONSTRAINT live_replies_owner_fkey REFERENCES viva.processes,
    -- Since when the owner has had no reader of it; null while it has one.
    left_at timestamptz,
    -- Asked for by any process, done by the owner.
    end_requested text CONSTRAINT live_replies_end_requested_check
        CHECK (end_requested IN ('stopped', 'superseded'))
);

CREATE INDEX live_replies_owner_idx ON viva.live_replies (owner);
CREATE INDEX live_replies_person_idx ON viva.live_replies (channel, person);

-- Processes with readers of a reply that another process owns, renewed each second.
CREATE TABLE viva.far_readers (
    message_id uuid NOT NULL CONSTRAINT far_readers_reply_fkey
        REFERENCES viva.live_replies ON DELETE CASCADE,
    process_id uuid NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT far_readers_pkey PRIMARY KEY (message_id, process_id)
);

-- The text of live replies, as it was committed. start counts the characters before.
-- No foreign key: its check would lock a row per chunk in the hottest statement.
CREATE TABLE viva.journal (
    message_id uuid NOT NULL,
    start integer NOT NULL,
    text text NOT NULL,
    CONSTRAINT journal_pkey PRIMARY KEY (message_id, start)
);

-- A person's Idempotency-Key belongs to one reply as long as that message exists.
CREATE TABLE viva.idempotency_keys (
    channel text NOT NULL,
    person text NOT NULL,
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
    message_id uuid NOT NULL CONSTRAINT idempotency_keys_message_fkey
        REFERENCES viva.messages (id) ON DELETE CASCADE,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (channel, person, key)
);

CREATE INDEX idempotency_keys_message_idx ON viva.idempotency_keys (message_id);

-- Webhook deliveries, one row per event however often it came. Work on it comes later.
CREATE TABLE viva.inbox (
    id uuid NOT NULL CONSTRAINT inbox_pkey PRIMARY KEY,
    -- SHA-256 of what tells one event from another (viva_server.whatsapp.keys).
    dedupe_key bytea NOT NULL
        CONSTRAINT inbox_dedupe_key UNIQUE
        CONSTRAINT inbox_dedupe_key_check CHECK (octet_length(dedupe_key) = 32),
    instance text NOT NULL,
    event text NOT NULL,
    -- false: the table of events does not have it.
    is_known boolean NOT NULL,
    kind text NOT NULL,
    -- What the normal form said under default settings when it came.
    answer boolean NOT NULL,
    -- The secret was right (or the door is open on purpose): it may be answered.
    trusted boolean NOT NULL,
    chat text,
    message_id text,
    tail text NOT NULL,
    headers jsonb NOT NULL,
    -- The normal form, and the body without secrets and media.
    form jsonb NOT NULL,
    body jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    deliveries integer NOT NULL DEFAULT 1
        CONSTRAINT inbox_deliveries_check CHECK (deliveries >= 1),
    -- Times of the later deliveries, the first 32 of them.
    redelivered_at timestamptz[] NOT NULL DEFAULT '{}',
    -- When an erasure emptied the row (kind 'emptied'). Its key stays as a tombstone: a
    -- late delivery of the same event finds it, and is a duplicate and nothing more.
    erased_at timestamptz
);

-- A person's chat: its turns, its export and its erasure.
CREATE INDEX inbox_chat_idx ON viva.inbox (instance, chat, received_at) WHERE chat IS NOT NULL;
-- The trace of one message.
CREATE INDEX inbox_message_idx ON viva.inbox (message_id) WHERE message_id IS NOT NULL;
-- Retention.
CREATE INDEX inbox_received_at_idx ON viva.inbox (received_at);

-- What was done with people's data, for who has to answer for it. It names nobody.
CREATE TABLE viva.audit (
    id uuid CONSTRAINT audit_pkey PRIMARY KEY,
    action text NOT NULL
        CONSTRAINT audit_action_check CHECK (action IN ('export', 'erase', 'purge')),
    -- HMAC-SHA256 of channel and person under the signing secret; null for a purge.
    person_hmac bytea,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null: it runs, or was cut short.
    finished_at timestamptz,
    -- How many of what.
    counts jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX audit_action_idx ON viva.audit (action, started_at);
