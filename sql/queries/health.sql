-- Is the database usable?

-- name: ping
-- Answer at once.
SELECT 1 AS pong;
