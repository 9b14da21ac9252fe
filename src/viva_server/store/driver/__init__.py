"""The driver: all that knows aiopg and psycopg2, and the named queries."""
