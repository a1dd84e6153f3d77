"""Data: Pydantic at the edge, SQLAlchemy mappings and plain dataclasses inside."""
