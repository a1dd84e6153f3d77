"""The circuit breaker: when it opens, whom it lets probe, when it closes."""

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


def test_it_opens_at_so_many_failures_in_a_row(clock: Clock) -> None:
    breaker = CircuitBreaker(3, 15)
    failing(breaker, 2)
    breaker.enter()
    breaker.succeeded()
    failing(breaker, 2)
    breaker.enter()
    breaker.failed("cannot be reached")
    assert breaker.is_open
    clock.now += 4.5
    with pytest.raises(CircuitOpenError) as caught:
        breaker.enter()
    assert caught.value.retry_after == 11
    assert breaker.describe() == "3 in a row failed: it cannot be reached; asked again every 15 s"


def test_then_one_may_probe_and_the_others_wait_for_it(clock: Clock) -> None:
    breaker = CircuitBreaker(1, 15)
    failing(breaker, 1)
    clock.now += 15
    breaker.enter()
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    breaker.succeeded()
    breaker.enter()
    breaker.enter()
    assert not breaker.is_open


def test_a_probe_that_fails_opens_it_anew(clock: Clock) -> None:
    breaker = CircuitBreaker(1, 15)
    failing(breaker, 1)
    clock.now += 15
    failing(breaker, 1)
    clock.now += 14
    with pytest.raises(CircuitOpenError):
        breaker.enter()


def test_a_probe_that_is_given_up_lets_another_try(clock: Clock) -> None:
    breaker = CircuitBreaker(1, 15)
    failing(breaker, 1)
    clock.now += 15
    breaker.enter()
    breaker.abandoned()
    breaker.enter()
