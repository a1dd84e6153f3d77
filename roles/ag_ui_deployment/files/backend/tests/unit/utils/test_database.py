"""Classification of the errors of PostgreSQL and its driver."""

import asyncpg

from src.utils.database import is_bad_data, is_outage


def test_closed_connection_is_an_outage() -> None:
    error = asyncpg.InterfaceError("cannot perform operation: connection is closed")
    assert is_outage(error)
    assert not is_bad_data(error)
