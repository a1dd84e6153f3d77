"""Second factors: time-based one-time passwords (RFC 6238) and recovery codes."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, model_validator
from sqlalchemy import BigInteger, DateTime, ForeignKey, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from src.models.login import Code, LoginText
from src.utils.database import Base

RequiredCode = Annotated[Code, Field(min_length=1)]


class SecondFactorRow(Base):
    """A TOTP secret, required at login once it is confirmed.

    `last_step` is the time step of the last accepted code, so that no code is accepted twice.
    """

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed_secret: Mapped[str] = mapped_column(Text)
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class RecoveryCodeRow(Base):
    """An unused recovery code."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[str] = mapped_column(Text, primary_key=True)


class PasswordProof(BaseModel):
    password: LoginText


class CodeProof(BaseModel):
    code: RequiredCode


class FullProof(PasswordProof):
    """The password, and a code or (where the authenticator is lost) a recovery code."""

    code: RequiredCode | None = None
    recovery_code: RequiredCode | None = None

    @model_validator(mode="after")
    def _require_one_code(self) -> Self:
        if (self.code is None) == (self.recovery_code is None):
            raise ValueError("give either code or recovery_code")
        return self


class SecondFactorSetup(BaseModel):
    """Shown once. It counts from its confirmation on."""

    secret: str
    otpauth_uri: str


class IssuedRecoveryCodes(BaseModel):
    """Shown once; each can be used once in place of a code."""

    recovery_codes: list[str]


class SecondFactorState(BaseModel):
    enabled: bool
    recovery_codes_left: int
