"""PostgreSQL: the driver, the named queries, one module per subject."""
