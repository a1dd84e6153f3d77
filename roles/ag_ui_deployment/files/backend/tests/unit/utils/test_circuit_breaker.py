"""The circuit breaker: when it opens, which calls it lets through, and when it closes."""

import pytest

from src.utils import circuit_breaker
from src.utils.circuit_breaker import CircuitBreaker, CircuitOpenError


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(circuit_breaker, "time", clock)
    return clock


def failing(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.enter()
        breaker.failed("cannot be reached")


def test_opens_after_consecutive_failures(clock: Clock) -> None:
    breaker = CircuitBreaker(3, 15)
    failing(breaker, 2)
    breaker.enter()
    breaker.succeeded()
    failing(breaker, 3)
    assert breaker.is_open
    clock.now += 4.5
    with pytest.raises(CircuitOpenError) as caught:
        breaker.enter()
    assert caught.value.retry_after == 11
    assert (
        breaker.describe() == "3 in a row failed: it cannot be reached; not asked for another 11 s"
    )


def test_allows_calls_after_the_pause_and_closes_on_success(clock: Clock) -> None:
    breaker = CircuitBreaker(2, 15)
    failing(breaker, 2)
    clock.now += 15
    # It closes after the pause even without calls, since the state of the service is unknown.
    assert not breaker.is_open
    assert (
        breaker.describe()
        == "2 in a row failed: it cannot be reached; asked again with the next call"
    )
    breaker.enter()
    # A call that hangs or is cancelled does not block others.
    breaker.enter()
    breaker.succeeded()
    failing(breaker, 1)
    breaker.enter()


def test_first_failure_after_the_pause_reopens(clock: Clock) -> None:
    breaker = CircuitBreaker(5, 15)
    failing(breaker, 5)
    clock.now += 15
    failing(breaker, 1)
    clock.now += 14
    with pytest.raises(CircuitOpenError):
        breaker.enter()
