"""Runs the migrations on the database of the settings; started by `python -m src.cli migrate`."""

from alembic import context
from sqlalchemy import Connection

from src.models import (  # noqa: F401 - registers the tables
    account,
    audit,
    conversation,
    event,
    job,
    login_source,
    second_factor,
    session,
    submission,
    token_usage,
    user,
    workspace,
)
from src.utils.database import Base

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
