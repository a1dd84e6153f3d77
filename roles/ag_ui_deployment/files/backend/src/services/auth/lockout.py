"""Lockout of login sources after failures.

Failures are counted per source, so that one source cannot lock out another. In addition, all networks
that never logged in to the account share a budget, which limits guesses from many networks.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from src.models.login_source import LoginSourceRow
from src.models.user import UserRow
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditEvent

ALLOWED_FAILURES = 5
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=60)
# The count of a source restarts after this time without failures.
FAILURES_KEPT = timedelta(days=1)
# A network remains known for this long after the last login from it.
LOGINS_KEPT = timedelta(days=90)
# The source that stands for all networks that never logged in to the account.
UNKNOWN_NETWORKS = "unknown networks"


def wait_after(failures: int) -> timedelta | None:
    """The lockout after a number of failures: 1 min after the fifth, doubling up to 60 min."""
    if failures < ALLOWED_FAILURES:
        return None
    doublings = min(failures - ALLOWED_FAILURES, 10)
    return min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class FailureBudget:
    """The shared budget of unknown networks: `amount` failures at once, and as many per `period`."""

    amount: int
    period: timedelta

    def locked_until(self, before: datetime | None, now: datetime) -> datetime:
        """The new end of the lockout after a failure, by the generic cell rate algorithm (GCRA).

        Args:
            before: The previous end of the lockout, also in the past.
            now: The time of the failure.
        """
        interval = self.period / self.amount
        full = now - interval * (self.amount - 1)
        return max(before or full, full) + interval


@dataclass(frozen=True, slots=True)
class Lockout:
    """The failures of one source on one account.

    `shared` is the row of all unknown networks if the source is one of these, else None.
    """

    own: LoginSourceRow
    shared: LoginSourceRow | None
    budget: FailureBudget

    @property
    def rows(self) -> list[LoginSourceRow]:
        return [self.own] if self.shared is None else [self.own, self.shared]

    def is_locked(self, now: datetime) -> bool:
        return any(_is_locked(row, now) for row in self.rows)

    def count_failure(self, now: datetime) -> list[LoginSourceRow]:
        """Count a failure. Returns the rows that are locked after it."""
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
        """Reset the source after a successful login. The count of unknown networks stays."""
        self.own.failures = 0
        self.own.locked_until = None


def is_known(row: LoginSourceRow, now: datetime) -> bool:
    """Whether there was a login from this network in the last 90 days."""
    return row.logged_in_at is not None and now - row.logged_in_at < LOGINS_KEPT


def lockout_event(user: UserRow, row: LoginSourceRow) -> AuditEvent:
    details = {
        "source": row.source,
        "failures": row.failures,
        "locked_until": row.locked_until and row.locked_until.isoformat(),
    }
    return Actor.of(user).audit_event(Action.LOCKOUT, f"user:{user.id}", details)


def _is_locked(row: LoginSourceRow, now: datetime) -> bool:
    return row.locked_until is not None and row.locked_until > now
