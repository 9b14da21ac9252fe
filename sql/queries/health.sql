-- How the database is.

-- name: read_clock
-- The server's clock, in seconds since 1970.
SELECT CAST(extract(EPOCH FROM clock_timestamp()) AS double precision) AS epoch;
