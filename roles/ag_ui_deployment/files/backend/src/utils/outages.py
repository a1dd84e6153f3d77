"""Explains errors of Redis and PostgreSQL to operators."""

import ssl
from collections.abc import Iterator

from asyncpg import exceptions as postgresql
from redis import exceptions as redis
from redis.asyncio.sentinel import MasterNotFoundError

from src.utils.database import NoPrimaryError

# The first match is used, so subclasses precede their base classes.
_DESCRIPTIONS: tuple[tuple[type[BaseException], str], ...] = (
    (redis.OutOfMemoryError, "refuses writes: its memory limit (maxmemory) is reached"),
    (redis.BusyLoadingError, "is still loading its data after a start"),
    (redis.ReadOnlyError, "refuses writes: it is a replica"),
    (redis.MasterDownError, "has lost its master"),
    (redis.NoPermissionError, "does not permit this to the account in REDIS_URL"),
    (redis.AuthenticationError, "refuses the account or password in REDIS_URL"),
    (redis.TimeoutError, "does not answer in time"),
    (redis.ConnectionError, "cannot be reached"),
    (postgresql.TooManyConnectionsError, "has no connection left for us"),
    (postgresql.DiskFullError, "refuses writes: its disk is full"),
    (postgresql.OutOfMemoryError, "has no memory left"),
    (postgresql.CannotConnectNowError, "is starting or stopping"),
    (postgresql.ReadOnlySQLTransactionError, "refuses writes: it is a standby or read-only"),
    (postgresql.InvalidAuthorizationSpecificationError, "refuses the account in DATABASE_URL"),
    (postgresql.InvalidCatalogNameError, "has no database of the name in DATABASE_URL"),
    (postgresql.InsufficientPrivilegeError, "does not permit this to the account in DATABASE_URL"),
    (postgresql.UndefinedTableError, "has another schema than this release: run the migrations"),
    (postgresql.UndefinedColumnError, "has another schema than this release: run the migrations"),
    (postgresql.DeadlockDetectedError, "ended a transaction that was in the way of another"),
    (postgresql.SerializationError, "ended a transaction that was in the way of another"),
    (postgresql.QueryCanceledError, "took too long"),
    (postgresql.PostgresConnectionError, "cannot be reached"),
    (postgresql.ConnectionDoesNotExistError, "cannot be reached"),
    (NoPrimaryError, "has no server that accepts writes: see DATABASE_STANDBYS"),
    (TimeoutError, "does not answer in time"),
    (OSError, "cannot be reached"),
)
_NO_PRIMARY = "has no primary that one of REDIS_SENTINELS names"
_CERTIFICATE = "has a certificate that is not trusted: see REDIS_CA and DATABASE_CA"
# Errors without a class in redis-py. Their message begins with this code.
_NAMES = {
    "MISCONF": "refuses writes: it cannot save its data, see its log and its disk",
    "NOREPLICAS": "refuses writes: it has too few replicas",
}


def explain(error: BaseException) -> str:
    """Describe an error as a predicate that follows the name of the server."""
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return _CERTIFICATE
    if any(isinstance(cause, MasterNotFoundError) for cause in causes):
        return _NO_PRIMARY
    for cause in causes:
        for error_class, description in _DESCRIPTIONS:
            if isinstance(cause, error_class):
                return description
        if isinstance(cause, redis.ResponseError):
            for name in _NAMES.keys() & str(cause).split():
                return _NAMES[name]
    return f"answers with an error ({type(causes[-1]).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, including the implicit ones, which redis-py relies on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def refuses_writes(error: BaseException) -> bool:
    """Whether an error means that Redis answers but rejects all writes."""
    if isinstance(error, redis.OutOfMemoryError | redis.ReadOnlyError):
        return True
    return isinstance(error, redis.ResponseError) and not _NAMES.keys().isdisjoint(
        str(error).split()
    )
