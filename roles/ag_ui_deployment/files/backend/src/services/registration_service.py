"""How people come to their accounts: by invitation, or by registering an address of theirs."""

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.account import (
    AccountTokenRow,
    Invitation,
    NewInvitation,
    Purpose,
    Registration,
)
from src.models.role import Role
from src.models.user import User, UserRow
from src.models.workspace import Membership
from src.repositories import account_tokens as token_rows
from src.repositories import accounts as account_rows
from src.repositories import users as user_rows
from src.services import link_tokens
from src.services.account_service import check_still_admin
from src.services.actors import Actor
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.email_addresses import normalise_email
from src.services.link_tokens import LinkNotValidError
from src.services.mails import Mails
from src.services.passwords import hash_new_password
from src.services.reset_service import ResetService
from src.services.user_service import UserExistsError, add_row, check_workspaces
from src.utils.database import Database

logger = structlog.get_logger(__name__)


class RegistrationClosedError(Exception):
    """The setting REGISTRATION does not allow this; the message says what it is."""


class RegistrationService:
    def __init__(
        self,
        database: Database,
        audit: AuditLogger,
        resets: ResetService,
        mails: Mails,
        settings: Settings,
    ) -> None:
        self._database = database
        self._audit = audit
        self._resets = resets
        self._mails = mails
        self._mode = settings.REGISTRATION

    async def invite(self, actor: Actor, new: NewInvitation) -> Invitation:
        """A later invitation of an address takes the place of an earlier one.

        Raises RegistrationClosedError, EmailRejectedError, UserExistsError and what
        check_workspaces does.
        """
        if self._mode == "closed":
            raise RegistrationClosedError(self._mode)
        email = normalise_email(new.email)
        roles = {one.workspace: one.role.value for one in new.memberships}
        async with self._database.transaction() as session:
            await account_rows.lock(session)
            await check_still_admin(session, actor)
            if await user_rows.by_email(session, email):
                raise UserExistsError(email)
            await check_workspaces(session, list(roles))
            await token_rows.forget(session, email, Purpose.INVITATION)
            row = AccountTokenRow(
                purpose=Purpose.INVITATION.value,
                email=email,
                name=new.name,
                role=new.role.value,
                memberships=[{"workspace": name, "role": role} for name, role in roles.items()],
            )
            link = await link_tokens.issue(session, row)
        details = {"email": email, "role": new.role.value, "workspaces": roles}
        await self._audit.record(actor.did(Action.USER_INVITE, f"address:{email}", details))
        mailed = self._mails.can_be_sent
        if mailed:
            self._mails.behind_the_answer(self._mails.send(Purpose.INVITATION, email, link))
        return Invitation(
            email=email,
            role=new.role,
            expires_at=link.expires_at,
            mailed=mailed,
            link=None if mailed else self._mails.link(Purpose.INVITATION, link.token),
        )

    async def accept(self, token: str, password: str, name: str | None) -> User:
        """An account from an invitation.

        Raises RegistrationClosedError, LinkNotValidError, PasswordRejectedError or UserExistsError.
        """
        if self._mode == "closed":
            raise RegistrationClosedError(self._mode)
        row = await self._look(token, Purpose.INVITATION, Action.REGISTER)
        hashed = await hash_new_password(password, row.email, name or row.name or "")
        return await self._make(row, hashed, name or row.name, "invitation")

    async def register(self, given: Registration) -> None:
        """Sends a link to the address, whatever is known of it; the account is made when it is used.

        Raises RegistrationClosedError, MailNotConfiguredError, EmailRejectedError or
        PasswordRejectedError.
        """
        if self._mode != "open":
            raise RegistrationClosedError(self._mode)
        self._mails.require()
        email = normalise_email(given.email or "")
        hashed = await hash_new_password(given.password, email, given.name or "")
        async with self._database.transaction() as session:
            user = await user_rows.by_email(session, email)
        if user is not None:
            self._mails.behind_the_answer(self._resets.send_link(user.id))
        else:
            row = AccountTokenRow(
                purpose=Purpose.REGISTRATION.value,
                email=email,
                name=given.name,
                role=Role.VIEWER.value,
                password_hash=hashed,
            )
            self._mails.behind_the_answer(self._send_confirmation(row))

    async def _send_confirmation(self, row: AccountTokenRow) -> None:
        async with self._database.transaction() as session:
            if await link_tokens.sent_enough(session, row.email, Purpose.REGISTRATION):
                logger.info("registration_mail_withheld")
                return
            link = await link_tokens.issue(session, row)
        await self._mails.send(Purpose.REGISTRATION, row.email, link)

    async def verify(self, token: str) -> User:
        """The account that was registered. Raises LinkNotValidError or UserExistsError."""
        row = await self._look(token, Purpose.REGISTRATION, Action.EMAIL_VERIFY)
        user = await self._make(row, row.password_hash or "", row.name, "open registration")
        await self._record(Action.EMAIL_VERIFY, user)
        return user

    async def _look(self, token: str, purpose: Purpose, action: Action) -> AccountTokenRow:
        try:
            async with self._database.transaction() as session:
                return await link_tokens.look(session, token, purpose)
        except LinkNotValidError:
            await self._audit.record(
                AuditEvent(action, Outcome.FAILURE, details={"reason": "link not valid"})
            )
            raise

    async def _make(self, row: AccountTokenRow, hashed: str, name: str | None, how: str) -> User:
        async with self._database.transaction() as session:
            await account_rows.lock(session)
            await link_tokens.use(session, row)
            new = UserRow(
                email=row.email, name=name, password_hash=hashed, role=row.role or Role.VIEWER.value
            )
            await add_row(session, new, await _memberships(session, row))
            user = User.model_validate(new)
        await self._record(Action.REGISTER, user, {"role": user.role.value, "by": how})
        return user

    async def _record(
        self, action: Action, user: User, details: dict[str, str] | None = None
    ) -> None:
        await self._audit.record(Actor.of(user).did(action, f"user:{user.id}", details))


async def _memberships(session: AsyncSession, row: AccountTokenRow) -> list[Membership]:
    """In those workspaces that are still there."""
    wanted = [Membership.model_validate(one) for one in row.memberships or []]
    known = await account_rows.known_workspaces(session, [one.workspace for one in wanted])
    return [one for one in wanted if one.workspace in known]
