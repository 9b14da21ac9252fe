-- The whole schema of viva_server, for readers and for new databases of the tests.
-- A live database gets here through migrations/; a test proves both ways equal.
-- Times are the database's clock. Ids are UUIDv7 made by the process that inserts.

CREATE SCHEMA viva;

-- A process that owns replies. Every statement that writes for an owner locks its row
-- FOR KEY SHARE and finds it alive, or writes nothing: that is the fence.
CREATE TABLE viva.processes (
    id uuid CONSTRAINT processes_pkey PRIMARY KEY,
    -- The session-level advisory lock that the process holds while it lives, another one
    -- on each connection. Null: it has none, behind a pooler that takes sessions away.
    lock_key bigint,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Heartbeat, every 0.5 s. Others compare it for being another, with no clock.
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Set once, by another process that has closed this one's replies. Never unset.
    dead_at timestamptz,
    -- For the operator: its version, machine and pid, and its readers at the last beat.
    version text NOT NULL DEFAULT '',
    host text NOT NULL DEFAULT '',
    pid integer NOT NULL DEFAULT 0,
    readers integer NOT NULL DEFAULT 0,
    -- The other half of the heartbeat, for a clock that stands still.
    beats bigint NOT NULL DEFAULT 0,
    -- Who declared it dead, and how: it stood still and its lock was free (fast), it
    -- stood still for long (slow), or whoever started PostgreSQL found its row (found).
    dead_by uuid,
    verdict text CONSTRAINT processes_verdict_check
        CHECK (verdict IN ('fast', 'slow', 'found'))
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
    -- 1, 2, 3 … within the session; of replaced replies -1, -2, -3 …
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
            'stop', 'length', 'content_filter', 'stopped', 'disconnected',
            'superseded', 'shutdown', 'crashed', 'upstream_error', 'limit'
        )
    ),
    -- Why a reply failed, for the error event; a word such as upstream_timeout.
    error_code text,
    -- That asking again will not help; only beside an error_code.
    error_is_final boolean NOT NULL DEFAULT FALSE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The seq that a reply had until another took its place (meta.replaced_by).
    replaced_seq integer,
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

-- Processes with readers of a reply that another process owns, renewed each second. A
-- row counts while its process lives.
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

-- The committed text of a live reply behind `known` characters, up to the first hole: a
-- failover may have lost what stood there, and text behind it belongs elsewhere.
CREATE FUNCTION viva.journal_text(reply uuid, known integer) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(string_agg(c.text, '' ORDER BY c.start), '')
    FROM (
        SELECT
            j.start,
            j.text,
            known + sum(length(j.text)) OVER (ORDER BY j.start) - length(j.text)
                AS whole_until
        FROM viva.journal AS j
        WHERE j.message_id = reply AND j.start >= known
    ) AS c
    WHERE c.start = c.whole_until
$$;

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

-- Webhook deliveries, one row per event however often it came.
CREATE TABLE viva.inbox (
    id uuid NOT NULL CONSTRAINT inbox_pkey PRIMARY KEY,
    -- SHA-256 of what tells one event from another (whatsapp.ingress.delivery).
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
    erased_at timestamptz,
    -- A receipt, an own message, an edit or a delete that is not applied yet.
    is_pending boolean NOT NULL DEFAULT FALSE,
    -- Why it could not be applied; it waits for a replay.
    problem text
);

-- A person's chat: its turns, its export and its erasure.
CREATE INDEX inbox_chat_idx ON viva.inbox (instance, chat, received_at) WHERE chat IS NOT NULL;
-- The trace of one message.
CREATE INDEX inbox_message_idx ON viva.inbox (message_id) WHERE message_id IS NOT NULL;
-- Retention.
CREATE INDEX inbox_received_at_idx ON viva.inbox (received_at);
CREATE INDEX inbox_pending_idx ON viva.inbox (received_at) WHERE is_pending;
CREATE INDEX inbox_problem_idx ON viva.inbox (received_at) WHERE problem IS NOT NULL;

-- A person's lid and phone in one instance: versions deliver the same chat under either.
CREATE TABLE viva.whatsapp_lids (
    instance text NOT NULL,
    lid text NOT NULL,
    -- The phone's jid.
    jid text NOT NULL,
    CONSTRAINT whatsapp_lids_pkey PRIMARY KEY (instance, lid)
);

CREATE INDEX whatsapp_lids_jid_idx ON viva.whatsapp_lids (instance, jid);

-- The queue: one row for each chat, claimed by one process at a time.
CREATE TABLE viva.whatsapp_chats (
    instance text NOT NULL,
    -- Where a reply goes: the phone's jid where it is known, else the lid, or a group's.
    jid text NOT NULL,
    -- When there is work; pushed on by each new message. Null: there is none.
    due_at timestamptz,
    -- A chat that never falls silent is answered all the same: not pushed on beyond this.
    latest_at timestamptz,
    -- The process that works on it; declaring it dead gives the chat back.
    owner uuid,
    -- Handover: somebody answers by hand until then; the message that began it was sent then.
    paused_until timestamptz,
    paused_by timestamptz,
    CONSTRAINT whatsapp_chats_pkey PRIMARY KEY (instance, jid)
);

CREATE INDEX whatsapp_chats_due_idx ON viva.whatsapp_chats (due_at)
    WHERE owner IS NULL AND due_at IS NOT NULL;
CREATE INDEX whatsapp_chats_owner_idx ON viva.whatsapp_chats (owner) WHERE owner IS NOT NULL;

-- One answer to all messages that had gathered in a chat, and its tries.
CREATE TABLE viva.whatsapp_turns (
    id uuid CONSTRAINT whatsapp_turns_pkey PRIMARY KEY,
    instance text NOT NULL,
    jid text NOT NULL,
    -- The session's message that holds the joined text, whatever try stores it.
    user_message_id uuid NOT NULL,
    -- The present try's reply; earlier ones were cut and never sent.
    reply_id uuid,
    cut_reply_ids uuid[] NOT NULL DEFAULT '{}',
    runs integer NOT NULL DEFAULT 0,
    -- running -> answered | dead; a replay takes a dead one back.
    state text NOT NULL CONSTRAINT whatsapp_turns_state_check
        CHECK (state IN ('running', 'answered', 'dead')),
    error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);

CREATE UNIQUE INDEX whatsapp_turns_running_key ON viva.whatsapp_turns (instance, jid)
    WHERE state = 'running';
CREATE INDEX whatsapp_turns_chat_idx ON viva.whatsapp_turns (instance, jid, ended_at);
CREATE INDEX whatsapp_turns_reply_idx ON viva.whatsapp_turns (reply_id);
CREATE INDEX whatsapp_turns_dead_idx ON viva.whatsapp_turns (ended_at) WHERE state = 'dead';

-- What people wrote on WhatsApp, once per message, whatever event brought it.
CREATE TABLE viva.whatsapp_messages (
    instance text NOT NULL,
    message_id text NOT NULL,
    jid text NOT NULL,
    inbox_id uuid NOT NULL CONSTRAINT whatsapp_messages_inbox_fkey
        REFERENCES viva.inbox ON DELETE CASCADE,
    kind text NOT NULL,
    text text,
    -- By WhatsApp's clock, where the delivery told it.
    sent_at timestamptz NOT NULL,
    -- Set: it is not answered, for this reason. Neither this nor a turn: it waits.
    why_not text,
    turn_id uuid CONSTRAINT whatsapp_messages_turn_fkey
        REFERENCES viva.whatsapp_turns ON DELETE SET NULL,
    edited_at timestamptz,
    deleted_at timestamptz,
    CONSTRAINT whatsapp_messages_pkey PRIMARY KEY (message_id, instance)
);

CREATE INDEX whatsapp_messages_chat_idx ON viva.whatsapp_messages (instance, jid, sent_at);
CREATE INDEX whatsapp_messages_waiting_idx ON viva.whatsapp_messages (instance, jid)
    WHERE turn_id IS NULL AND why_not IS NULL;
CREATE INDEX whatsapp_messages_turn_idx ON viva.whatsapp_messages (turn_id);
CREATE INDEX whatsapp_messages_inbox_idx ON viva.whatsapp_messages (inbox_id);

-- What is sent on WhatsApp, in parts that fit one message.
CREATE TABLE viva.outbox (
    id uuid CONSTRAINT outbox_pkey PRIMARY KEY,
    turn_id uuid NOT NULL CONSTRAINT outbox_turn_fkey
        REFERENCES viva.whatsapp_turns ON DELETE CASCADE,
    instance text NOT NULL,
    jid text NOT NULL,
    -- The order within a chat, whose turns come one after the other.
    seq bigint GENERATED ALWAYS AS IDENTITY,
    text text NOT NULL,
    -- waiting -> sending (committed before the request) -> sent | waiting | unknown
    -- | dead; unknown -> sent by Evolution's own event; dropped: by a handover or an erasure.
    state text NOT NULL DEFAULT 'waiting' CONSTRAINT outbox_state_check CHECK (
        state IN ('waiting', 'sending', 'unknown', 'sent', 'dead', 'dropped')
    ),
    owner uuid,
    -- waiting: not before; unknown: until then it may still prove to be sent.
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- A late answer is worse than none.
    expires_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 hour',
    -- [{"at", "outcome", "reason"}], one for each request.
    attempts jsonb NOT NULL DEFAULT '[]',
    error text,
    -- WhatsApp's id of it, and how far its receipts have come.
    message_id text,
    receipt text,
    receipt_rank smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz
);

CREATE INDEX outbox_due_idx ON viva.outbox (due_at) WHERE state = 'waiting';
CREATE INDEX outbox_chat_idx ON viva.outbox (instance, jid, seq)
    WHERE state IN ('waiting', 'sending', 'unknown');
CREATE INDEX outbox_owner_idx ON viva.outbox (owner) WHERE owner IS NOT NULL;
CREATE INDEX outbox_message_idx ON viva.outbox (message_id, instance)
    WHERE message_id IS NOT NULL;
CREATE INDEX outbox_turn_idx ON viva.outbox (turn_id);
CREATE INDEX outbox_dead_idx ON viva.outbox (created_at) WHERE state IN ('dead', 'unknown');

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
