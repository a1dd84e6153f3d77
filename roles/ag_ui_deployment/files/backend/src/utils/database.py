"""The PostgreSQL engine and sessions, and the classification of database errors."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
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
    TargetServerAttributeNotMatched,
)
from pydantic import SecretStr
from sqlalchemy import Dialect, event, func, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
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
# PostgreSQL ends the transactions of a process that hangs or lost its network, since other instances
# wait for its locks.
_IDLE_TRANSACTION_MS = 5000


class NoPrimaryError(OSError):
    """None of the servers accepts writes."""


class Base(DeclarativeBase):
    """Base class of all mapped tables."""


class Database:
    """An engine and its sessions. It connects when first used.

    `statement_timeout` is in seconds; None disables it.
    """

    def __init__(
        self, settings: Settings, statement_timeout: float | None = STATEMENT_TIMEOUT
    ) -> None:
        url = make_url(settings.DATABASE_URL.get_secret_value())
        mode = url.query.get("sslmode", "prefer")
        primary = PrimaryConnector(url.host or "", url.port or 5432, settings.database_standbys)
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
                "async_creator_fn": primary.connect,
                "ssl": _ssl_of(str(mode), settings.DATABASE_CA or None),
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": statement_timeout,
                "server_settings": {"application_name": settings.REDIS_CONSUMER_NAME},
            },
        )
        event.listen(self.engine.sync_engine, "connect", _bound_idle_transactions)
        event.listen(self.engine.sync_engine, "handle_error", _discard_connections_to_standby)
        if settings.DATABASE_PREVIOUS_PASSWORD:
            connect = _fall_back_to(settings.DATABASE_PREVIOUS_PASSWORD)
            event.listen(self.engine.sync_engine, "do_connect", connect)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction commits at the end, or rolls back on an exception."""
        async with self._sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def alone(self, key: int, *, wait: bool = False) -> AsyncIterator[bool]:
        """Hold a session-level advisory lock, which excludes other instances.

        Unlike a transaction-level lock it may be held for long, since no transaction is open.

        Args:
            key: The key of the lock.
            wait: Whether to wait until the lock is free.

        Yields:
            Whether the lock is held; always true with `wait`.
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
        """Execute a trivial query, to test the connection.

        Raises:
            DATABASE_ERRORS: The server does not answer.
        """
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


class PrimaryConnector:
    """Connects to the one server that accepts writes.

    A single server is used whether or not it accepts writes, as it may be a pooler. Several are tried
    one after the other, the last one that accepted writes first. asyncpg would try them in the same
    order each time, all within one timeout, which a server that does not answer uses up.
    """

    def __init__(self, host: str, port: int, standbys: Sequence[tuple[str, int]]) -> None:
        self._servers = [(host, port), *standbys]

    async def connect(self, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect.

        Args:
            options: Arguments of asyncpg.connect. Host and port are replaced if there are several
                servers.

        Raises:
            NoPrimaryError: None of several servers accepts writes.
            PostgresError: As before, and one of them rejects the login.
        """
        if len(self._servers) == 1:
            return await asyncpg.connect(**options)
        errors: list[Exception] = []
        for server in tuple(self._servers):
            options |= {"host": server[0], "port": server[1]}
            try:
                connection = await asyncpg.connect(**options, target_session_attrs="read-write")
            except (*_DRIVER_ERRORS, TargetServerAttributeNotMatched) as error:
                errors.append(error)
            else:
                self._servers.sort(key=lambda other: other != server)
                return connection
        # More specific: the others do not answer, or are standbys.
        refusal = next((error for error in errors if isinstance(error, PostgresError)), None)
        if refusal is not None:
            raise refusal
        raise NoPrimaryError("no server accepts writes") from errors[0]


def _ssl_of(mode: str, ca: str | None) -> ssl.SSLContext | str | bool:
    """Map a libpq sslmode to asyncpg's `ssl`. Only verify-ca and verify-full check the certificate."""
    if mode in {"disable", "allow", "prefer"}:
        return mode
    context = ssl.create_default_context(cadata=ca)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _fall_back_to(
    password: SecretStr,
) -> Callable[[Dialect, object, list[Any], dict[str, Any]], DBAPIConnection]:
    """Log in with this password if PostgreSQL refuses the one of the URL.

    While a password is being changed, instances thus log in before and after the change.
    """

    def connect(
        dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
    ) -> DBAPIConnection:
        try:
            return dialect.connect(*arguments, **options)
        except Exception as error:
            if not _caused_by(error, (InvalidAuthorizationSpecificationError,)):
                raise
        return dialect.connect(*arguments, **options | {"password": password.get_secret_value()})

    return connect


def _bound_idle_transactions(connection: DBAPIConnection, _record: object) -> None:
    """Limit idle transactions. PgBouncer rejects this as a startup parameter, hence the statement."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_TRANSACTION_MS}")
    cursor.close()
    connection.commit()


def _discard_connections_to_standby(context: ExceptionContext) -> None:
    """Discard all pooled connections when a write is rejected: the primary has become a standby."""
    if _caused_by(context.original_exception, (ReadOnlySQLTransactionError,)):
        context.is_disconnect = True


_DRIVER_ERRORS = (PostgresError, DriverInterfaceError, OSError)
# All errors that a query can raise. While connecting, SQLAlchemy does not wrap those of the driver.
DATABASE_ERRORS = (SQLAlchemyError, *_DRIVER_ERRORS)

_SERVER_STATE = (
    DeadlockDetectedError,
    DriverInterfaceError,
    IdleInTransactionSessionTimeoutError,
    # While the owner of the tables changes. /health lists missing privileges
    # (services/operations/database_rights.py).
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
# PostgreSQL raises ProgramLimitExceededError also for a value that is too long for an index.
_REFUSED_VALUES = (DataError, IntegrityConstraintViolationError, ProgramLimitExceededError)


def is_outage(error: BaseException) -> bool:
    """Whether a retry may succeed, because the error is due to the server and not to the statement."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _caused_by(error, _SERVER_STATE) and not is_bad_data(error)


def is_bad_data(error: BaseException) -> bool:
    """Whether the error is due to the values, so that the same statement will fail again."""
    return any(
        isinstance(cause, _REFUSED_VALUES) or _is_unsendable(cause) for cause in _causes(error)
    )


def _is_unsendable(error: BaseException) -> bool:
    """Whether the driver could not encode a value or that number of values.

    For the former asyncpg raises its own DataError, a subclass of InterfaceError and ValueError that
    is not PostgreSQL's DataError. For the latter it raises a plain InterfaceError.
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
