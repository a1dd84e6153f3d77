"""Error messages for the operator who has to fix the problem."""

import asyncpg
import pytest
from asyncpg import exceptions as postgresql
from redis import exceptions as redis
from sqlalchemy.exc import OperationalError

from src.utils.outages import explain, refuses_writes


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'"), "maxmemory"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
        (redis.ReadOnlyError("You can't write against a read only replica."), "replica"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "save"),
        (redis.ResponseError("Command # 1 (XACK) caused error: MISCONF Redis"), "save"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "replicas"),
        (redis.AuthenticationError("invalid username-password pair"), "password"),
        (redis.NoPermissionError("no permissions to run the 'eval' command"), "permit"),
        (redis.TimeoutError("Timeout reading from redis:6379"), "in time"),
        (redis.ConnectionError("Error 111 connecting to redis:6379"), "reached"),
        (postgresql.TooManyConnectionsError("too many clients already"), "connection left"),
        (postgresql.DiskFullError("could not extend file"), "disk is full"),
        (postgresql.CannotConnectNowError("the database system is starting up"), "starting"),
        (postgresql.InvalidPasswordError("password authentication failed"), "DATABASE_URL"),
        (postgresql.UndefinedTableError("relation does not exist"), "migrations"),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle"), "reached"),
        (ConnectionRefusedError(111, "refused"), "reached"),
        (TimeoutError(), "in time"),
        (redis.ResponseError("ERR something of tomorrow"), "(ResponseError)"),
    ],
)
def test_error_has_an_explanation(error: Exception, words: str) -> None:
    assert words in explain(error)


def test_explanation_is_that_of_the_cause() -> None:
    error = OperationalError("INSERT", {}, Exception())
    error.__cause__ = Exception("of the driver")
    error.__cause__.__cause__ = postgresql.DiskFullError("could not extend file")
    assert "disk is full" in explain(error)


def test_server_messages_are_not_exposed() -> None:
    """Messages of drivers may contain URLs with passwords."""
    assert "hunter2" not in explain(redis.ConnectionError("redis://:hunter2@host:6379"))
    assert "hunter2" not in explain(Exception("postgresql://shield:hunter2@host"))


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (redis.OutOfMemoryError("..."), True),
        (redis.ReadOnlyError("..."), True),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (redis.ResponseError("NOGROUP No such consumer group"), False),
        (redis.NoPermissionError("no permissions"), False),
        (redis.ConnectionError("MISCONF"), False),
    ],
)
def test_refusal_of_writes_is_recognised(error: Exception, *, refused: bool) -> None:
    assert refuses_writes(error) is refused
