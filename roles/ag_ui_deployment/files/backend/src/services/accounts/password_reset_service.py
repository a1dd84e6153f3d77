"""Password reset with an emailed link."""

from uuid import UUID

import structlog

from src.models.account import AccountTokenRow, LinkPurpose, ResetLink
from src.models.session import AccessChangeReason
from src.models.user import UserRow
from src.repositories import accounts as account_rows
from src.repositories import login_sources
from src.repositories import users as user_rows
from src.services.accounts import link_tokens
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.errors import AccountNotFoundError, LinkNotValidError
from src.services.accounts.transaction import administering
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth.access_service import AccessService
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import EmailRejectedError
from src.services.auth.login_attempts import add_known_network
from src.services.auth.passwords import hash_new_password
from src.utils.database import Database

logger = structlog.get_logger(__name__)


class PasswordResetService:
    def __init__(
        self,
        database: Database,
        access: AccessService,
        audit: AuditLogger,
        mails: EmailTemplates,
    ) -> None:
        self._database = database
        self._access = access
        self._audit = audit
        self._mails = mails

    async def forgot(self, email_input: str) -> None:
        """Send a link in the background if there is an account with this address.

        Raises:
            MailNotConfiguredError: SMTP_URL is not set.
        """
        self._mails.require()
        try:
            email = normalise_email(email_input)
        except EmailRejectedError:
            email = ""
        async with self._database.transaction() as session:
            user = await user_rows.by_email(session, email)
        if user is not None:
            self._mails.run_in_background(self.send_link(user.id))

    async def send_link(self, user_id: UUID) -> None:
        """Send a link, unless the account is inactive or its mailbox got too many emails."""
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, user_id)
            if user is None or not user.active:
                return
            if await link_tokens.is_mail_limited(session, user.email, LinkPurpose.RESET):
                logger.info("reset_mail_withheld", user_id=str(user_id))
                return
            link = await link_tokens.issue(session, _row(user))
        # No actor, since anybody can request a reset.
        details = {"email": user.email, "step": "link sent"}
        target = f"user:{user.id}"
        await self._audit.record(AuditEvent(Action.PASSWORD_RESET, target=target, details=details))
        await self._mails.send(LinkPurpose.RESET, user.email, link)

    async def create_reset_link(self, actor: Actor, user_id: UUID) -> ResetLink:
        """Create a link that an administrator passes on.

        Raises:
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            user = await user_rows.by_id(session, user_id)
            if user is None:
                raise AccountNotFoundError
            link = await link_tokens.issue(session, _row(user, actor.id))
        details = {"email": user.email, "step": "link made"}
        await self._audit.record(
            actor.audit_event(Action.PASSWORD_RESET, f"user:{user.id}", details)
        )
        return ResetLink(
            email=user.email,
            token=link.token,
            link=self._mails.link(LinkPurpose.RESET, link.token),
            expires_at=link.expires_at,
        )

    async def reset(self, token: str, password: str, address: str | None) -> None:
        """Set a new password with a link. This ends all sessions and revokes all device cookies.

        Without a second factor all failed logins are deleted, and the network of `address` becomes
        known, so that failures of other networks do not lock it out. With a second factor neither
        happens, since the lockout protects it against somebody who controls the mailbox.

        Args:
            token: The token of the link.
            password: The new password.
            address: The client address.

        Raises:
            LinkNotValidError: The token is invalid, or the account was deactivated or deleted.
            PasswordRejectedError: The password violates the policy.
        """
        try:
            user = await self._reset(token, password, address)
        except LinkNotValidError:
            details = {"reason": "link not valid"}
            failure = AuditEvent(Action.PASSWORD_RESET, Outcome.FAILURE, details=details)
            await self._audit.record(failure)
            raise
        await self._audit.record(
            Actor.of(user).audit_event(
                Action.PASSWORD_RESET, f"user:{user.id}", {"step": "password set"}
            )
        )

    async def _reset(self, token: str, password: str, address: str | None) -> UserRow:
        """Set the password. Returns the account."""
        async with self._database.transaction() as session:
            row = await link_tokens.find(session, token, LinkPurpose.RESET)
            owner = await user_rows.by_id(session, row.user_id) if row.user_id else None
        if owner is None:
            raise LinkNotValidError
        hashed = await hash_new_password(password, owner.email, owner.name or "")
        async with self._database.transaction() as session:
            await link_tokens.consume(session, row)
            user = await user_rows.for_update(session, owner.id)
            if user is None or not user.active or user.password_hash != row.password_hash:
                raise LinkNotValidError
            user.password_hash = hashed
            if not await account_rows.has_second_factor(session, user.id):
                await login_sources.delete_of_user(session, user.id)
                await add_known_network(session, user.id, address)
            await self._access.publish_change(
                session, user_id=user.id, reason=AccessChangeReason.PASSWORD_CHANGE
            )
        return user


def _row(user: UserRow, made_by: UUID | None = None) -> AccountTokenRow:
    return AccountTokenRow(
        purpose=LinkPurpose.RESET.value,
        email=user.email,
        user_id=user.id,
        password_hash=user.password_hash,
        made_by=made_by,
    )
