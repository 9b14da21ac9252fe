"""The embedded PostgreSQL: a server of its own for those who have none."""
