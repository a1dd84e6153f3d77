"""Runs the migrations on the database of the settings; started by `python -m src.cli migrate`."""

from importlib import import_module
from pkgutil import iter_modules

from alembic import context
from sqlalchemy import Connection

from src import models
from src.utils.database import Base

# Their import registers the tables.
for module in iter_modules(models.__path__):
    import_module(f"src.models.{module.name}")

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
