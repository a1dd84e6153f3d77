"""The audit log: who did what, on what, from where, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog

from src.utils.database import Database

logger = structlog.get_logger(__name__)


class Action(StrEnum):
    LOGIN = "login"
    LOCKOUT = "lockout"
    UNLOCK = "unlock"
    LOGOUT = "logout"
    TOKEN_REUSE = "token.reuse"  # noqa: S105 - the name of an action
    PASSWORD_CHANGE = "password.change"  # noqa: S105 - the name of an action
    PASSWORD_RESET = "password.reset"  # noqa: S105 - the name of an action
    REGISTER = "user.register"
    EMAIL_VERIFY = "user.verify_email"
    MFA_CHANGE = "mfa.change"
    USER_INVITE = "user.invite"
    USER_CREATE = "user.create"
    USER_DEACTIVATE = "user.deactivate"
    USER_ACTIVATE = "user.activate"
    ROLE_CHANGE = "role.change"
    WORKSPACE_CREATE = "workspace.create"
    WORKSPACE_DELETE = "workspace.delete"
    MEMBERSHIP_CHANGE = "membership.change"
    TOOL_CALL = "tool.call"
    AGENT_RUN = "agent.run"
    THREAD_DELETE = "thread.delete"
    ACCESS_DENIED = "access.denied"
    AUDIT_EXPORT = "audit.export"
    AUDIT_VERIFY = "audit.verify"
    DEAD_LETTER_REPLAY = "dead_letter.replay"
    DEAD_LETTER_DISCARD = "dead_letter.discard"
    SETTINGS_CHANGE = "settings.change"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that somebody did or tried.

    `actor_id` and `actor` (an email address, or a word like "operator") are who, `target` is on
    what, as `kind:id`. `details` hold small plain values; never secrets or contents. The request
    id and the address that the request came from are taken from the context of the request.
    """

    action: Action
    outcome: Outcome = Outcome.SUCCESS
    actor_id: UUID | None = None
    actor: str | None = None
    target: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class AuditLogger:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, event: AuditEvent) -> None:
        logger.info(
            "audit",
            action=event.action.value,
            outcome=event.outcome.value,
            actor_id=event.actor_id and str(event.actor_id),
            actor=event.actor,
            target=event.target,
            details=dict(event.details),
        )
