"""The database of a test through PgBouncer."""

import os
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.support.environment import Environment


def through_pgbouncer(environment: Environment, mode: Literal["SESSION", "TRANSACTION"]) -> str:
    """Return the URL of the database through the pool in this mode."""
    parts = urlsplit(environment.database_url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{os.environ[f'TEST_PGBOUNCER_{mode}']}"))
