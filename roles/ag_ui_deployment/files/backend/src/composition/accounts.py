"""Builds the administration of accounts, and what users do without a login."""

from dataclasses import dataclass
from typing import Self

from src.config import Settings
from src.services.accounts.account_service import AccountService
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.password_reset_service import PasswordResetService
from src.services.accounts.registration_service import RegistrationService
from src.services.accounts.workspace_service import WorkspaceService
from src.services.audit_logger import AuditLogger
from src.services.auth.access_service import AccessService
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import Database


@dataclass(frozen=True, slots=True)
class Accounts:
    service: AccountService
    workspaces: WorkspaceService
    registration: RegistrationService
    password_resets: PasswordResetService

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        database: Database,
        access: AccessService,
        audit: AuditLogger,
        background: BackgroundJobs,
    ) -> Self:
        mails = EmailTemplates(EmailSender(settings), background, settings)
        password_resets = PasswordResetService(database, access, audit, mails)
        return cls(
            service=AccountService(database, access, audit),
            workspaces=WorkspaceService(database, access, audit),
            registration=RegistrationService(database, audit, password_resets, mails, settings),
            password_resets=password_resets,
        )
