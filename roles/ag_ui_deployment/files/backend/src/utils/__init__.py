"""Logging, database and Redis connections."""
