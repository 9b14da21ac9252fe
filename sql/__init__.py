"""The SQL of viva_server: schema, named queries and migrations, as package data."""
