"""Creation of accounts by their owners: by invitation or by open registration."""

from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.account import (
    AccountTokenRow,
    Invitation,
    LinkPurpose,
    NewInvitation,
    PendingInvitation,
)
from src.models.permissions import Role
from src.models.user import User, UserRow
from src.models.workspace import Membership
from src.repositories import account_tokens as token_rows
from src.repositories import accounts as account_rows
from src.repositories import users as user_rows
from src.services.accounts import link_tokens
from src.services.accounts.creation import add_account, check_new_account
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.errors import (
    InvitationNotFoundError,
    LinkNotValidError,
    RegistrationClosedError,
    UserExistsError,
)
from src.services.accounts.password_reset_service import PasswordResetService
from src.services.accounts.transaction import administering
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth.email_addresses import normalise_email
from src.services.auth.login_attempts import add_known_network
from src.services.auth.passwords import hash_new_password
from src.utils.database import Database

logger = structlog.get_logger(__name__)


class RegistrationService:
    def __init__(
        self,
        database: Database,
        audit: AuditLogger,
        resets: PasswordResetService,
        mails: EmailTemplates,
        settings: Settings,
    ) -> None:
        self._database = database
        self._audit = audit
        self._resets = resets
        self._mails = mails
        self._mode = settings.REGISTRATION

    async def invite(self, actor: Actor, invitation_request: NewInvitation) -> Invitation:
        """Invite a person. This replaces an earlier invitation of the address.

        Returns:
            The invitation, with its link if no email can be sent.

        Raises:
            RegistrationClosedError: REGISTRATION is "closed".
            EmailRejectedError: The address is invalid.
            UserExistsError: There is an account with this address.
            MembershipRejectedError: A membership is invalid.
            NotPermittedError: The actor is no longer an administrator.
        """
        if self._mode == "closed":
            raise RegistrationClosedError(self._mode)
        email = normalise_email(invitation_request.email)
        memberships = [
            membership.model_dump(mode="json") for membership in invitation_request.memberships
        ]
        row = AccountTokenRow(
            id=uuid4(),
            purpose=LinkPurpose.INVITATION.value,
            email=email,
            name=invitation_request.name,
            role=invitation_request.role.value,
            memberships=memberships,
            made_by=actor.id,
        )
        async with administering(self._database, actor) as session:
            await check_new_account(session, email, invitation_request.memberships)
            await token_rows.delete_of_email(session, email, LinkPurpose.INVITATION)
            link = await link_tokens.issue(session, row)
        details = {
            "email": email,
            "role": invitation_request.role.value,
            "memberships": memberships,
        }
        await self._audit.record(
            actor.audit_event(Action.USER_INVITE, f"invitation:{row.id}", details)
        )
        mailed = self._mails.can_be_sent
        if mailed:
            self._mails.run_in_background(self._mails.send(LinkPurpose.INVITATION, email, link))
        return Invitation(
            id=row.id,
            email=email,
            role=invitation_request.role,
            expires_at=link.expires_at,
            mailed=mailed,
            link=None if mailed else self._mails.link(LinkPurpose.INVITATION, link.token),
        )

    async def invitations(self) -> list[PendingInvitation]:
        """The invitations that can be accepted, by email address."""
        async with self._database.transaction() as session:
            rows = await token_rows.invitations(session)
        names = PendingInvitation.model_fields.keys() - {"invited_by"}
        return [
            PendingInvitation.model_validate(
                {name: getattr(row, name) for name in names} | {"invited_by": invited_by}
            )
            for row, invited_by in rows
        ]

    async def withdraw(self, actor: Actor, invitation_id: UUID) -> None:
        """Withdraw an invitation.

        Raises:
            InvitationNotFoundError: There is no such invitation.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            email = await token_rows.withdraw(session, invitation_id)
        if email is None:
            raise InvitationNotFoundError
        target = f"invitation:{invitation_id}"
        await self._audit.record(
            actor.audit_event(Action.INVITATION_WITHDRAW, target, {"email": email})
        )

    async def accept(
        self, token: str, password: str, name: str | None, address: str | None
    ) -> User:
        """Create an account from an invitation.

        Args:
            token: The token of the link.
            password: The password of the account.
            name: The name; None for the one in the invitation.
            address: The client address, whose network becomes known to the account.

        Raises:
            RegistrationClosedError: REGISTRATION is "closed".
            LinkNotValidError: The token is invalid.
            PasswordRejectedError: The password violates the policy.
            UserExistsError: There is an account with this address.
        """
        if self._mode == "closed":
            raise RegistrationClosedError(self._mode)
        row = await self._find_token(token, LinkPurpose.INVITATION, Action.REGISTER)
        return await self._create_account(row, password, name or row.name, "invitation", address)

    async def register(self, email: str, name: str | None) -> None:
        """Send a link to an address, also if it has an account, so that this is not revealed.

        The link creates the account. If there already is one, the link resets its password.

        Raises:
            RegistrationClosedError: REGISTRATION is not "open".
            MailNotConfiguredError: SMTP_URL is not set.
            EmailRejectedError: The address is invalid.
        """
        self._require_open()
        self._mails.require()
        address = normalise_email(email)
        async with self._database.transaction() as session:
            user = await user_rows.by_email(session, address)
        if user is not None:
            self._mails.run_in_background(self._resets.send_link(user.id))
        else:
            row = AccountTokenRow(
                purpose=LinkPurpose.REGISTRATION.value,
                email=address,
                name=name,
                role=Role.VIEWER.value,
            )
            self._mails.run_in_background(self._send_confirmation(row))

    async def _send_confirmation(self, row: AccountTokenRow) -> None:
        async with self._database.transaction() as session:
            if await link_tokens.is_mail_limited(session, row.email, LinkPurpose.REGISTRATION):
                logger.info("registration_mail_withheld")
                return
            link = await link_tokens.issue(session, row)
        await self._mails.send(LinkPurpose.REGISTRATION, row.email, link)

    async def verify(self, token: str, password: str, address: str | None) -> User:
        """Create an account from an open registration.

        Args:
            token: The token of the link.
            password: The password of the account, chosen by the owner of the mailbox.
            address: The client address, whose network becomes known to the account.

        Raises:
            RegistrationClosedError: REGISTRATION is not "open".
            LinkNotValidError: The token is invalid.
            PasswordRejectedError: The password violates the policy.
            UserExistsError: There is an account with this address.
        """
        self._require_open()
        row = await self._find_token(token, LinkPurpose.REGISTRATION, Action.EMAIL_VERIFY)
        user = await self._create_account(row, password, row.name, "open registration", address)
        await self._record(Action.EMAIL_VERIFY, user)
        return user

    def _require_open(self) -> None:
        if self._mode != "open":
            raise RegistrationClosedError(self._mode)

    async def _find_token(
        self, token: str, purpose: LinkPurpose, action: Action
    ) -> AccountTokenRow:
        try:
            async with self._database.transaction() as session:
                return await link_tokens.find(session, token, purpose)
        except LinkNotValidError:
            await self._audit.record(
                AuditEvent(action, Outcome.FAILURE, details={"reason": "link not valid"})
            )
            raise

    async def _create_account(
        self,
        row: AccountTokenRow,
        password: str,
        name: str | None,
        method: str,
        address: str | None,
    ) -> User:
        hashed = await hash_new_password(password, row.email, name or "")
        role = row.role or Role.VIEWER.value
        new_user = UserRow(email=row.email, name=name, password_hash=hashed, role=role)
        async with self._database.transaction() as session:
            await account_rows.lock(session)
            await link_tokens.consume(session, row)
            try:
                await add_account(session, new_user, await _existing_memberships(session, row))
            except UserExistsError:
                raise UserExistsError(link_tokens.input_field(row)) from None
            await add_known_network(session, new_user.id, address)
            user = User.model_validate(new_user)
        await self._record(Action.REGISTER, user, {"role": role, "by": method})
        return user

    async def _record(
        self, action: Action, user: User, details: dict[str, str] | None = None
    ) -> None:
        await self._audit.record(Actor.of(user).audit_event(action, f"user:{user.id}", details))


async def _existing_memberships(session: AsyncSession, row: AccountTokenRow) -> list[Membership]:
    """The memberships of an invitation in workspaces that still exist."""
    memberships = [Membership.model_validate(membership) for membership in row.memberships or []]
    known = await account_rows.known_workspaces(
        session, [membership.workspace for membership in memberships]
    )
    return [membership for membership in memberships if membership.workspace in known]
