"""How long failures keep a source of logins away from an account.

The failures of each source count apart, so that a source cannot lock out another one. All networks
that have not logged in to the account share a budget besides: guesses that come from many networks
are bounded together.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from src.models.login_source import LoginSourceRow
from src.models.user import UserRow
from src.services.audit_logger import Action, AuditEvent

ALLOWED_FAILURES = 5
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=60)
# A source without failures for so long starts anew.
FAILURES_KEPT = timedelta(days=1)
# A network is known for so long after the last login from it.
LOGINS_KEPT = timedelta(days=90)
# All networks together that have not logged in to an account.
UNKNOWN_NETWORKS = "unknown networks"


def wait_after(failures: int) -> timedelta | None:
    """The fifth failure costs a minute, and each further one twice as long; None for nothing."""
    if failures < ALLOWED_FAILURES:
        return None
    doublings = min(failures - ALLOWED_FAILURES, 10)
    return min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Budget:
    """Failures that unknown networks have together: `amount` at once, and as many per `period`."""

    amount: int
    period: timedelta

    def locked_until(self, before: datetime | None, now: datetime) -> datetime:
        """The generic cell rate algorithm: each failure takes one, and time gives them back."""
        interval = self.period / self.amount
        full = now - interval * (self.amount - 1)
        return max(before or full, full) + interval


@dataclass(frozen=True, slots=True)
class Lockout:
    """What is counted of one source on one account; `shared` where it is an unknown network."""

    own: LoginSourceRow
    shared: LoginSourceRow | None
    budget: Budget

    @property
    def rows(self) -> list[LoginSourceRow]:
        return [self.own] if self.shared is None else [self.own, self.shared]

    def is_locked(self, now: datetime) -> bool:
        return any(_is_locked(row, now) for row in self.rows)

    def count_failure(self, now: datetime) -> list[LoginSourceRow]:
        """Gives what is locked by it."""
        for row in self.rows:
            recent = row.failed_at is not None and now - row.failed_at < FAILURES_KEPT
            row.failures = row.failures + 1 if recent else 1
            row.failed_at = now
        wait = wait_after(self.own.failures)
        self.own.locked_until = None if wait is None else now + wait
        if self.shared is not None:
            self.shared.locked_until = self.budget.locked_until(self.shared.locked_until, now)
        return [row for row in self.rows if _is_locked(row, now)]

    def clear(self) -> None:
        """The source has proven to be the owner's. What other networks have failed stays."""
        self.own.failures = 0
        self.own.locked_until = None


def is_known(row: LoginSourceRow, now: datetime) -> bool:
    """Whether there was a login from this network."""
    return row.logged_in_at is not None and now - row.logged_in_at < LOGINS_KEPT


def lockout_event(user: UserRow, row: LoginSourceRow) -> AuditEvent:
    return AuditEvent(
        Action.LOCKOUT,
        actor_id=user.id,
        actor=user.email,
        target=f"user:{user.id}",
        details={
            "source": row.source,
            "failures": row.failures,
            "locked_until": row.locked_until and row.locked_until.isoformat(),
        },
    )


def _is_locked(row: LoginSourceRow, now: datetime) -> bool:
    return row.locked_until is not None and row.locked_until > now
