"""Detects a connection pooler with transaction pooling between the backend and PostgreSQL."""

from asyncpg.exceptions import DuplicatePreparedStatementError, InvalidSQLStatementNameError
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from src.utils.database import Database

TRANSACTION_POOLING = (
    "DATABASE_URL: leads to a pooler that hands out connections per transaction (PgBouncer's "
    "pool_mode = transaction or statement); locks and settings of a session are lost there. Use a "
    "pool with pool_mode = session, or the address of PostgreSQL itself"
)
# Several attempts, since other clients of the pooler may hide the pooling at first.
_ATTEMPTS = 5


async def is_pooled_per_transaction(database: Database) -> bool:
    """Whether two open connections are served by the same backend process of PostgreSQL.

    Raises:
        DATABASE_ERRORS: PostgreSQL is unavailable.
    """
    async with database.engine.connect() as first, database.engine.connect() as second:
        try:
            for _ in range(_ATTEMPTS):
                if await _process_of(first) == await _process_of(second):
                    return True
        except DBAPIError as error:
            # A prepared statement of one connection exists for the other, or is missing for its own.
            driver_error = error.orig.__cause__ if error.orig else None
            if not isinstance(
                driver_error, DuplicatePreparedStatementError | InvalidSQLStatementNameError
            ):
                raise
            return True
    return False


async def _process_of(connection: AsyncConnection) -> object:
    async with connection.begin():
        return await connection.scalar(select(func.pg_backend_pid()))
