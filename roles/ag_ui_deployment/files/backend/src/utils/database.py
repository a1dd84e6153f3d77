"""The PostgreSQL connection: engine, sessions, and what counts as an outage."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from asyncpg import InterfaceError as DriverInterfaceError
from asyncpg.exceptions import (
    ClientConfigurationError,
    DataError,
    DeadlockDetectedError,
    IdleInTransactionSessionTimeoutError,
    InsufficientPrivilegeError,
    InsufficientResourcesError,
    IntegrityConstraintViolationError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    OperatorInterventionError,
    PostgresConnectionError,
    PostgresError,
    ProgramLimitExceededError,
    ReadOnlySQLTransactionError,
    SerializationError,
)
from sqlalchemy import event, func, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

from src.config import Settings

CONNECT_TIMEOUT = 3.0
STATEMENT_TIMEOUT = 10.0
# A process that stands still, or has lost its network, must not keep its locks: the other
# instances would wait for them with the same jobs.
_IDLE_TRANSACTION_MS = 5000


class Base(DeclarativeBase):
    """Parent of every table."""


class Database:
    """An engine and the sessions on it. Connects when first used, never at construction.

    `statement_timeout` is in seconds; None for work that may take as long as it needs.
    """

    def __init__(
        self, settings: Settings, statement_timeout: float | None = STATEMENT_TIMEOUT
    ) -> None:
        url = make_url(settings.DATABASE_URL.get_secret_value())
        mode = url.query.get("sslmode", "prefer")
        self.engine: AsyncEngine = create_async_engine(
            url.set(query={}),
            pool_size=settings.DATABASE_POOL_SIZE,
            max_overflow=settings.DATABASE_POOL_SIZE,
            pool_timeout=CONNECT_TIMEOUT,
            pool_pre_ping=True,
            pool_recycle=1800,
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
            hide_parameters=True,
            connect_args={
                "ssl": _ssl_of(str(mode), settings.DATABASE_CA or None),
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": statement_timeout,
                "server_settings": {"application_name": settings.REDIS_CONSUMER_NAME},
            },
        )
        event.listen(self.engine.sync_engine, "connect", _bound_idle_transactions)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end and rolls back on an error."""
        async with self._sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def alone(self, key: int, *, wait: bool = False) -> AsyncIterator[bool]:
        """Hold a lock over all instances, named by a number; gives whether it is held.

        It is tied to a connection, not to a transaction, and so may last.
        """
        lock = func.pg_advisory_lock if wait else func.pg_try_advisory_lock
        async with self.engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            is_held = await connection.scalar(select(lock(key))) is not False
            try:
                yield is_held
            finally:
                if is_held:
                    await connection.execute(select(func.pg_advisory_unlock(key)))

    async def ping(self) -> None:
        """Ask the server for an answer. Raises as is_outage() recognises when there is none."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _ssl_of(mode: str, ca: str | None) -> ssl.SSLContext | str | bool:
    """What the driver takes for a libpq sslmode. Only the last two modes check the certificate."""
    if mode in {"disable", "allow", "prefer"}:
        return mode
    context = ssl.create_default_context(cadata=ca)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _bound_idle_transactions(connection: DBAPIConnection, _record: object) -> None:
    """By a statement: PgBouncer refuses settings that it does not know at the start of a session."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_TRANSACTION_MS}")
    cursor.close()
    connection.commit()


# Whatever a query can raise. While connecting, the driver's own errors come through unwrapped.
DATABASE_ERRORS = (SQLAlchemyError, PostgresError, DriverInterfaceError, OSError)

_SERVER_STATE = (
    DeadlockDetectedError,
    DriverInterfaceError,
    IdleInTransactionSessionTimeoutError,
    # While the tables change hands; health names those that are missed (services/operations/database_rights.py).
    InsufficientPrivilegeError,
    InsufficientResourcesError,
    InvalidAuthorizationSpecificationError,
    InvalidCatalogNameError,
    OperatorInterventionError,
    PoolTimeoutError,
    PostgresConnectionError,
    ReadOnlySQLTransactionError,
    SerializationError,
    OSError,
)
# The last is also what a value is refused with that is too long for an index.
_REFUSED_VALUES = (DataError, IntegrityConstraintViolationError, ProgramLimitExceededError)


def is_outage(error: BaseException) -> bool:
    """Whether trying again later can help: the fault is the server's state, not the statement."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _caused_by(error, _SERVER_STATE) and not is_bad_data(error)


def is_bad_data(error: BaseException) -> bool:
    """Whether the values are at fault, so that the same statement will fail again."""
    return any(
        isinstance(cause, _REFUSED_VALUES) or _is_unsendable(cause) for cause in _causes(error)
    )


def _is_unsendable(error: BaseException) -> bool:
    """Whether the driver could not encode a value, which is another DataError, or so many.

    Both are without a name of their own, and the second has not even a class.
    """
    if type(error) is DriverInterfaceError:
        return "argument" in str(error)
    return (
        isinstance(error, DriverInterfaceError)
        and isinstance(error, ValueError)
        and not isinstance(error, ClientConfigurationError)
    )


def _caused_by(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
