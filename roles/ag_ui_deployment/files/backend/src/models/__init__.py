"""Pydantic models of the API, SQLAlchemy mappings of the tables, and dataclasses in between."""
