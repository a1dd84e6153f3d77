"""Administration from the command line.

Commands use the services of the API, so the same rules apply. The audit log names the actor "operator".
"""

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from src.commands.output import EXIT_BAD_INPUT, EXIT_EXISTS, EXIT_REFUSED, fail, log_to_stderr
from src.composition.accounts import Accounts
from src.config import Settings
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
from src.services.audit_logger import AuditLogger
from src.services.auth.access_service import AccessService
from src.services.auth.errors import EmailRejectedError, PasswordRejectedError
from src.services.auth.tokens import TokenService
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import Database

# Exit code and message of each error; {} is the text of the error.
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


def run_admin_command(settings: Settings, action: Callable[[Accounts], Awaitable[None]]) -> int:
    """Run a command, print its error if it fails, and return the exit code."""
    log_to_stderr()
    try:
        asyncio.run(_run(settings, action))
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False)
        field = ".".join(map(str, first["loc"])) or "input"
        return fail(EXIT_BAD_INPUT, f"{field}: {first['msg']}")
    except tuple(_REFUSALS) as error:
        code, message = _REFUSALS[type(error)]
        return fail(code, message.format(error))
    return 0


async def _run(settings: Settings, action: Callable[[Accounts], Awaitable[None]]) -> None:
    database = Database(settings)
    accounts = Accounts.build(
        settings,
        database=database,
        access=AccessService(database, TokenService(settings), settings),
        audit=AuditLogger(database),
        background=BackgroundJobs(),
    )
    try:
        await action(accounts)
    finally:
        await database.close()
