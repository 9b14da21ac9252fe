-- Which migrations the database has.

-- name: take_migration_lock
-- One process migrates at a time. Never waits, so no time limit can end it.
SELECT pg_try_advisory_lock(:lock_key) AS held;

-- name: has_migrations
-- Was this database ever migrated?
SELECT to_regclass('viva.migrations') IS NOT NULL AS found;

-- name: list_migrations
-- What was applied, in order.
SELECT version, name, sha256, applied_at FROM viva.migrations ORDER BY version;
