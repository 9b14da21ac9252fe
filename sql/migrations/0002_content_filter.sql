-- A reply that the model's filter ended is complete, and has a reason of its own.

ALTER TABLE viva.messages DROP CONSTRAINT messages_finish_reason_check;
ALTER TABLE viva.messages ADD CONSTRAINT messages_finish_reason_check CHECK (
    finish_reason IN (
        'stop', 'length', 'content_filter', 'stopped', 'disconnected',
        'superseded', 'shutdown', 'crashed', 'upstream_error', 'limit'
    )
) NOT VALID;

-- next transaction: the rows are read without a lock that holds anybody up.
ALTER TABLE viva.messages VALIDATE CONSTRAINT messages_finish_reason_check;
