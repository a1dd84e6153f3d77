"""The database of a test through PgBouncer."""

import os
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.support.world import World


def through_pgbouncer(world: World, mode: Literal["SESSION", "TRANSACTION"]) -> str:
    """The address of the database through the pool in this mode."""
    parts = urlsplit(world.database_url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{os.environ[f'TEST_PGBOUNCER_{mode}']}"))
