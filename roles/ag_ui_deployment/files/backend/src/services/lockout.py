"""How long an account takes no login after failures in a row."""

from datetime import datetime, timedelta

from src.models.user import UserRow
from src.services.audit_logger import Action, AuditEvent

ALLOWED_FAILURES = 5
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=60)


def wait_after(failures: int) -> timedelta | None:
    """The fifth failure costs a minute, and each further one twice as long; None for nothing."""
    if failures < ALLOWED_FAILURES:
        return None
    doublings = min(failures - ALLOWED_FAILURES, 10)
    return min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


def is_locked(user: UserRow, now: datetime) -> bool:
    return user.locked_until is not None and user.locked_until > now


def count_failure(user: UserRow, now: datetime) -> bool:
    """Whether the account is locked by it; while it is locked none counts."""
    if is_locked(user, now):
        return False
    user.failed_logins += 1
    wait = wait_after(user.failed_logins)
    if wait is None:
        return False
    user.locked_until = now + wait
    return True


def unlock(user: UserRow) -> None:
    user.failed_logins = 0
    user.locked_until = None


def lockout_event(user: UserRow) -> AuditEvent:
    return AuditEvent(
        Action.LOCKOUT,
        actor_id=user.id,
        actor=user.email,
        target=f"user:{user.id}",
        details={
            "failures": user.failed_logins,
            "locked_until": user.locked_until and user.locked_until.isoformat(),
        },
    )
