"""Denied access: whoever finds it, it is noted in the audit log and answered in one way."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from src.services.audit_logger import Action, AuditEvent, Outcome
from src.services.rbac_service import NotPermittedError
from src.web.problems import respond


def install(app: FastAPI) -> None:
    app.add_exception_handler(NotPermittedError, _on_denial)


async def _on_denial(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotPermittedError)  # noqa: S101 - how the handler is registered
    await request.state.services.audit.logger.record(_event(request, error))
    return respond(error)


def _event(request: Request, denial: NotPermittedError) -> AuditEvent:
    about = {"permission": denial.permission, "workspace": denial.workspace}
    # The requirement of a route leaves it there; without one nothing is denied.
    user = request.state.user
    return AuditEvent(
        Action.ACCESS_DENIED,
        Outcome.DENIED,
        actor_id=user.id,
        actor=user.email,
        target=f"{request.method} {request.url.path}",
        details={name: str(value) for name, value in about.items() if value is not None},
    )
