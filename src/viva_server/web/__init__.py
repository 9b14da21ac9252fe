"""The files of the web chat's page, as package data."""
