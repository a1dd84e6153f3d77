"""Administration from the command line: by the same services and rules, recorded as "operator"."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError

from src.commands.output import EXIT_BAD_INPUT, EXIT_EXISTS, EXIT_REFUSED, fail, log_to_stderr
from src.config import Settings
from src.services.accounts.account_service import AccountService
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.errors import (
    AccountNotFoundError,
    DefaultWorkspaceError,
    LastAdminError,
    MemberNotFoundError,
    UserExistsError,
    WorkspaceExistsError,
    WorkspaceInUseError,
    WorkspaceNotFoundError,
)
from src.services.accounts.password_reset_service import PasswordResetService
from src.services.accounts.workspace_service import WorkspaceService
from src.services.audit_logger import AuditLogger
from src.services.auth.access_service import AccessService
from src.services.auth.errors import EmailRejectedError, PasswordRejectedError
from src.services.auth.tokens import Tokens
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import Database

# How each refusal is told; {} is what the error says.
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    EmailRejectedError: (EXIT_BAD_INPUT, "email: {}"),
    PasswordRejectedError: (EXIT_BAD_INPUT, "password (on standard input): {}"),
    UserExistsError: (EXIT_EXISTS, "{}"),
    WorkspaceExistsError: (EXIT_EXISTS, "this workspace exists"),
    AccountNotFoundError: (EXIT_REFUSED, "there is no account with this address"),
    LastAdminError: (EXIT_REFUSED, "refused: no active administrator would be left"),
    WorkspaceNotFoundError: (EXIT_REFUSED, "there is no workspace {}"),
    WorkspaceInUseError: (EXIT_REFUSED, "refused: it has members or jobs, or is the default one"),
    DefaultWorkspaceError: (EXIT_REFUSED, "refused: to the default workspace everybody belongs"),
    MemberNotFoundError: (EXIT_REFUSED, "this user does not belong to this workspace"),
}


@dataclass(frozen=True, slots=True)
class AdminContext:
    database: Database
    accounts: AccountService
    workspaces: WorkspaceService
    resets: PasswordResetService


def run_in_office(settings: Settings, work: Callable[[AdminContext], Awaitable[None]]) -> int:
    """Gives the exit code."""
    log_to_stderr()
    try:
        asyncio.run(_run(settings, work))
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False)
        field = ".".join(map(str, first["loc"])) or "input"
        return fail(EXIT_BAD_INPUT, f"{field}: {first['msg']}")
    except tuple(_REFUSALS) as error:
        code, text = _REFUSALS[type(error)]
        return fail(code, text.format(error))
    return 0


async def _run(settings: Settings, work: Callable[[AdminContext], Awaitable[None]]) -> None:
    database = Database(settings)
    access = AccessService(database, Tokens(settings), settings)
    audit = AuditLogger(database)
    mails = EmailTemplates(EmailSender(settings), BackgroundJobs(), settings)
    try:
        await work(
            AdminContext(
                database,
                AccountService(database, access, audit),
                WorkspaceService(database, access, audit),
                PasswordResetService(database, access, audit, mails),
            )
        )
    finally:
        await database.close()
