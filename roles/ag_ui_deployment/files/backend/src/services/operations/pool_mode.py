"""Whether a pooler stands between us and PostgreSQL that hands out its connections per transaction."""

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
# The pooler may be busy with others at first.
_LOOKS = 5


async def is_pooled_per_transaction(database: Database) -> bool:
    """Whether two open connections are served by one process of PostgreSQL in turns.

    Raises what DATABASE_ERRORS names where PostgreSQL cannot be asked.
    """
    async with database.engine.connect() as one, database.engine.connect() as other:
        try:
            for _ in range(_LOOKS):
                if await _process_of(one) == await _process_of(other):
                    return True
        except DBAPIError as error:
            # A statement that one connection has prepared is there, or away, for the other.
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
