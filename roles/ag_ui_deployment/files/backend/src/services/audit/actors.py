"""The actors of audit events."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from src.models.user import User, UserRow
from src.services.audit_logger import Action, AuditEvent, Outcome
from src.utils.json_types import Json


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, or (without an id) the operator on the host."""

    name: str
    id: UUID | None = None

    @classmethod
    def of(cls, user: User | UserRow) -> "Actor":
        return cls(user.email, user.id)

    def audit_event(
        self,
        action: Action,
        target: str,
        details: Mapping[str, Json] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> AuditEvent:
        """Create an event of an action of this actor."""
        return AuditEvent(action, outcome, self.id, self.name, target, details or {})


OPERATOR = Actor("operator")
