-- A reply that another has replaced leaves its seq to that one: its own becomes negative,
-- and it remembers the place that it had. The primary key stays as it is.

ALTER TABLE viva.messages ADD COLUMN replaced_seq integer;
