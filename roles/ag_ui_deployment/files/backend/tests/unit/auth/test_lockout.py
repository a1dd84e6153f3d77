"""The duration of a lockout."""

from datetime import timedelta

from src.services.auth.lockout import wait_after


def test_lockout_doubles_up_to_an_hour() -> None:
    waits = [wait_after(failures) for failures in range(14)]
    assert waits[:5] == [None] * 5
    minutes = [wait.total_seconds() / 60 for wait in waits[5:] if wait is not None]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert wait_after(10**6) == timedelta(hours=1)
