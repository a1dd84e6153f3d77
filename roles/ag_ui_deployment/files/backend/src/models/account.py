"""Accounts in the API of administrators, and the tokens in links to their owners."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID, uuid4

from pydantic import (
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from sqlalchemy import DateTime, ForeignKey, Index, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page, PageCursor, PageLimit
from src.models.permissions import Role
from src.models.workspace import Membership, MembershipJson
from src.utils.database import Base

# PostgreSQL rejects NUL. Other control characters have no place in names and emails.
Printable = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
Email = Annotated[str, Field(max_length=320, examples=["alice@example.org"])]
# An upper bound only; services/auth/passwords.py checks the real limits.
NewPassword = Annotated[str, Field(max_length=4096, examples=["correct horse battery staple"])]
DisplayName = Annotated[str, Field(min_length=1, max_length=200, pattern=Printable)]
LinkToken = Annotated[str, Field(min_length=1, max_length=200)]


class LinkPurpose(StrEnum):
    """The purpose of a token in a link."""

    INVITATION = "invitation"
    # Differs from the value of earlier releases, whose tokens must not be accepted: they carry a
    # password chosen by whoever registered, who may not own the mailbox.
    REGISTRATION = "confirmation"
    RESET = "reset"


class AccountTokenRow(Base):
    """A single-use token with an expiry. Only its hash is stored.

    An invitation or registration holds the data of the account to create. A password reset names the
    account and its password hash at that time, so that a password change invalidates it. `made_by` is
    the administrator who created the token; it is invalid once they are no active administrator.
    """

    __tablename__ = "account_tokens"

    id: Mapped[UUID] = mapped_column(
        Uuid, unique=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    token_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    purpose: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text)
    # Mailbox that the email counts against. Null in rows of the previous release.
    mail_budget: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str | None] = mapped_column(Text)
    password_hash: Mapped[str | None] = mapped_column(Text)
    memberships: Mapped[list[MembershipJson] | None] = mapped_column(JSON)
    made_by: Mapped[UUID | None] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        Index("ix_account_tokens_email", "email", "purpose"),
        Index("ix_account_tokens_mail_budget", "mail_budget", "purpose"),
    )


class Account(BaseModel):
    """`locked_until` is when logins are possible again from wherever too many have failed."""

    id: UUID
    email: str
    name: str | None
    role: Role
    active: bool
    locked_until: datetime | None
    second_factor: bool
    memberships: tuple[Membership, ...]
    created_at: datetime


class AccountFilter(BaseModel):
    """`search` is a part of the address or the name, in any case."""

    search: Annotated[str | None, Field(max_length=200, pattern=Printable)] = None
    role: Role | None = None
    active: bool | None = None


class AccountQuery(AccountFilter):
    limit: PageLimit = 50
    cursor: PageCursor | None = None


class AccountPage(Page[Account]):
    pass


class _NewMember(BaseModel):
    email: Email
    role: Role = Role.VIEWER
    name: DisplayName | None = None
    # The maximum that an audit log entry can hold.
    memberships: Annotated[list[Membership], Field(max_length=30)] = []


class NameIn(BaseModel):
    """The name of an account; null for none."""

    name: DisplayName | None


class NewAccount(_NewMember):
    password: NewPassword


class NewInvitation(_NewMember):
    pass


class RoleIn(BaseModel):
    role: Role


class Invitation(BaseModel):
    """`link` only where no mail could be sent: pass it on to the person."""

    id: UUID
    email: str
    role: Role
    expires_at: datetime
    mailed: bool
    link: str | None


class PendingInvitation(BaseModel):
    """One that can be accepted."""

    id: UUID
    email: str
    name: str | None
    role: Role
    memberships: tuple[Membership, ...]
    invited_by: str | None
    created_at: datetime
    expires_at: datetime


class InvitationPage(Page[PendingInvitation]):
    pass


class ResetLink(BaseModel):
    """Shown once: whoever follows the link may set the account's password."""

    email: str
    token: str
    link: str
    expires_at: datetime


class Registration(BaseModel):
    """With the token of an `invitation` and a password, or with the `email` of an open registration.

    The password of the latter is chosen with the token that is mailed.
    """

    invitation: LinkToken | None = None
    email: Email | None = None
    password: Annotated[NewPassword | None, Field(validate_default=True)] = None
    name: DisplayName | None = None

    @field_validator("password")
    @classmethod
    def _require_invitation(cls, password: str | None, info: ValidationInfo) -> str | None:
        if (password is None) is (info.data.get("invitation") is not None):
            raise ValueError("goes with an invitation, and only with one")
        return password

    @model_validator(mode="after")
    def _require_one_way(self) -> Self:
        if (self.invitation is None) == (self.email is None):
            raise ValueError("give either email or invitation")
        return self


class EmailVerification(BaseModel):
    token: LinkToken
    password: NewPassword


class ForgottenPassword(BaseModel):
    email: Email


class PasswordReset(BaseModel):
    token: LinkToken
    password: NewPassword


class MailSent(BaseModel):
    """The same whether there is such an account or not."""

    message: str
