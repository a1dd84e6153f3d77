"""Records each denied request in the audit log, and answers it with a problem document."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditEvent, Outcome
from src.services.rbac_service import NotPermittedError
from src.web.problems import respond


def install(app: FastAPI) -> None:
    app.add_exception_handler(NotPermittedError, _on_denial)


async def _on_denial(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotPermittedError)  # noqa: S101 - guaranteed by the registration
    await request.state.services.audit.logger.record(_event(request, error))
    return respond(error)


def _event(request: Request, denial: NotPermittedError) -> AuditEvent:
    details = {"permission": denial.permission, "workspace": denial.workspace}
    # Set by Requirement.check(). Routes without a Requirement raise no NotPermittedError.
    return Actor.of(request.state.user).audit_event(
        Action.ACCESS_DENIED,
        f"{request.method} {request.url.path}",
        {name: str(value) for name, value in details.items() if value is not None},
        Outcome.DENIED,
    )
