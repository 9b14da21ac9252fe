-- A process beats by a value that changes, and a death says who declared it, and how.
-- The version before works on: it writes beat_at, and reads nothing that is new here.
ALTER TABLE viva.processes
    -- Behind a pooler that takes sessions away a process has no lock, and so no key.
    ALTER COLUMN lock_key DROP NOT NULL,
    ADD COLUMN beats bigint NOT NULL DEFAULT 0,
    ADD COLUMN dead_by uuid,
    ADD COLUMN verdict text;

ALTER TABLE viva.processes
    ADD CONSTRAINT processes_verdict_check
    CHECK (verdict IN ('fast', 'slow', 'found')) NOT VALID;
ALTER TABLE viva.processes VALIDATE CONSTRAINT processes_verdict_check;

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
