"""Errors as RFC 9457 problem documents, and the one place that turns exceptions into them."""

from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator
from starlette.exceptions import HTTPException
from starlette.responses import Response

from src.services.accounts.account_service import AccountNotFoundError, LastAdminError
from src.services.accounts.creation import MembershipRejectedError, UserExistsError
from src.services.accounts.email_sender import MailNotConfiguredError
from src.services.accounts.link_tokens import LinkNotValidError
from src.services.accounts.registration_service import (
    InvitationNotFoundError,
    RegistrationClosedError,
)
from src.services.accounts.workspace_service import (
    DefaultWorkspaceError,
    MemberNotFoundError,
    WorkspaceExistsError,
    WorkspaceInUseError,
    WorkspaceNotFoundError,
)
from src.services.agent.agent_service import (
    AgentDrainingError,
    RunLogUnavailableError,
    TooManyRunsError,
)
from src.services.agent.conversations import (
    RunExistsError,
    RunNotFoundError,
    ThreadBusyError,
    ThreadElsewhereError,
    ThreadNotFoundError,
)
from src.services.agent.storage_limits import (
    InputTooLargeError,
    ThreadFullError,
    UserFullError,
)
from src.services.agent.token_budget import TokensSpentError
from src.services.auth.email_addresses import EmailRejectedError
from src.services.auth.password_service import WrongPasswordError
from src.services.auth.passwords import PasswordRejectedError, PasswordsBusyError
from src.services.auth.rate_limits import LimitReachedError
from src.services.auth.second_factor_service import (
    ProofRejectedError,
    SecondFactorOffError,
    SecondFactorOnError,
)
from src.services.auth.secret_box import DecryptionError
from src.services.auth.session_service import RefreshRacedError, SessionNotFoundError
from src.services.auth.tickets import TicketsUnavailableError
from src.services.auth.tokens import InvalidTokenError
from src.services.auth_service import (
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    WrongCredentialsError,
)
from src.services.consumer.dead_letters import (
    DeadLetterClosedError,
    DeadLetterIncompleteError,
    DeadLetterNotFoundError,
)
from src.services.consumer.stream_status import StreamUnavailableError
from src.services.errors import FieldFaultError
from src.services.jobs.job_service import JobNotFoundError
from src.services.runs.ended_logs import LogsFullError, TooManyLogsError
from src.utils.database import DATABASE_ERRORS, is_outage
from src.utils.large_bodies import TooManyBodiesError, TooManyBodiesOfUserError
from src.utils.pagination import CursorRejectedError

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# The key under which the responses of a route name their problems.
PROBLEMS = "x-problems"
TYPE_PREFIX = "urn:shield-ag-ui:problem:"
# What FastAPI says of a body that it cannot decode.
_UNREADABLE = 400
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_BEARER = MappingProxyType({"WWW-Authenticate": "Bearer"})
RETRY_SOON = MappingProxyType({"Retry-After": "1"})
_RETRY_LATER = MappingProxyType({"Retry-After": "5"})
# The status of an instance that is full or being stopped: nginx passes the request on to the next one.
# It decides by the status alone, and 503 also stands for what all instances share, where asking each of
# them would add to an overload.
_ANOTHER_INSTANCE = 502
_FIELD_MAX = 200
# More help nobody; a body has room for many thousands.
_ERRORS_SHOWN = 20


def _shown(text: str) -> str:
    """A field's name may be the caller's own, however long and odd."""
    return text.encode(errors="replace").decode()[:_FIELD_MAX]


class FieldError(BaseModel):
    field: Annotated[str, BeforeValidator(_shown)]
    message: Annotated[str, BeforeValidator(_shown)]


class ProblemDocument(BaseModel):
    """The body of every error. `errors` names the fields at fault, where there are any."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """An error that a client gets to see. The subclasses are the list of all of them.

    An HTTPException, since FastAPI lets only these through while it reads a request body.
    """

    status = 500
    slug = "internal-error"
    title = "Something went wrong here"
    detail = "The error has been logged under the request id; try again, or tell the operator."
    headers: Mapping[str, str] | None = _NO_HEADERS
    # The fields that are at fault whenever it happens.
    faults: tuple[FieldError, ...] = ()

    def __init__(self, detail: str | None = None, errors: list[FieldError] | None = None) -> None:
        super().__init__(self.status, detail or self.detail, dict(self.headers or {}))
        self.errors = errors or list(self.faults) or None


class BadCursor(Problem):
    status = 400
    slug = "bad-cursor"
    title = "The cursor cannot be read"
    detail = "Send the next_cursor of the page before, or none for the first page."
    faults = (FieldError(field="query.cursor", message="is none that a page gave"),)


class PreflightRefused(Problem):
    status = 400
    slug = "preflight-refused"
    title = "A page of this origin may not send this request"


class NotAuthenticated(Problem):
    status = 401
    slug = "not-authenticated"
    title = "Login required"
    detail = "Send a valid access token: Authorization: Bearer TOKEN, from POST /auth/token."
    headers = _BEARER


class WrongCredentials(Problem):
    status = 401
    slug = "wrong-credentials"
    title = "Wrong email address or password"
    detail = "Check both and try again."
    headers = _BEARER


class SecondFactorRequired(Problem):
    status = 401
    slug = "second-factor-required"
    title = "A second factor is needed"
    detail = "Send the login again with otp, from your authenticator, or with a recovery_code."
    headers = _BEARER


class SecondFactorRejected(Problem):
    status = 401
    slug = "second-factor-rejected"
    title = "The second factor is not right"
    detail = "Each code counts once: wait for the next one, and check the authenticator's clock."
    headers = _BEARER


class NotPermitted(Problem):
    status = 403
    slug = "not-permitted"
    title = "Your role does not permit this"
    detail = "GET /api/permissions lists what each role may do; an administrator can change yours."


class WrongOrigin(Problem):
    status = 403
    slug = "wrong-origin"
    title = "Not from this page"
    detail = (
        "A write by cookie has to come from this host or one of CORS_ORIGINS, in the header Origin; "
        "send a bearer token instead."
    )


class CookiesNotKept(Problem):
    status = 403
    slug = "cookies-not-kept"
    title = "The browser would drop the cookies"
    detail = (
        "Browsers keep them only over TLS (or on this machine), and for pages of the same site as "
        "this server. Serve the page from a host of the same domain, or log in without cookies and "
        "send the bearer token."
    )


class NotFound(Problem):
    status = 404
    slug = "not-found"
    title = "Not found"
    detail = "There is nothing here under this address."


class JobNotFound(NotFound):
    slug = "job-not-found"
    title = "No such job"
    detail = "There is no job with this id among yours; GET /api/jobs lists them."


class SessionNotFound(NotFound):
    slug = "session-not-found"
    title = "No such session"
    detail = "You have no open session with this id; GET /auth/sessions lists them."


class AccountNotFound(NotFound):
    slug = "account-not-found"
    title = "No such account"
    detail = "GET /admin/users lists the accounts."


class InvitationNotFound(NotFound):
    slug = "invitation-not-found"
    title = "No such invitation"
    detail = "GET /admin/users/invitations lists those that can be accepted."


class WorkspaceNotFound(NotFound):
    slug = "workspace-not-found"
    title = "No such workspace"
    detail = "GET /admin/workspaces lists them; POST makes one."


class MemberNotFound(NotFound):
    slug = "member-not-found"
    title = "This user does not belong to this workspace"
    detail = "GET /admin/workspaces/{name}/members lists who does."


class AccountExists(Problem):
    status = 409
    slug = "account-exists"
    title = "There is an account with this address"
    detail = "Its owner can log in, or have its password set anew: POST /auth/password/forgot."


class LastAdmin(Problem):
    status = 409
    slug = "last-admin"
    title = "Nobody would be left who may administer"
    detail = "Give another active account the role admin first."


class WorkspaceExists(Problem):
    status = 409
    slug = "workspace-exists"
    title = "There is a workspace of this name"
    detail = "Choose another name."


class WorkspaceInUse(Problem):
    status = 409
    slug = "workspace-in-use"
    title = "The workspace is not empty"
    detail = "Only one without members and jobs can be deleted, and never the default one."


class DefaultWorkspace(Problem):
    status = 409
    slug = "default-workspace"
    title = "Everybody belongs to the default workspace"
    detail = "There the account's own role counts: change that."


class RefreshRaced(Problem):
    status = 409
    slug = "refresh-raced"
    title = "This refresh token was used at the same moment"
    detail = "The other refresh got the new tokens: use those."


class RunNotFound(NotFound):
    slug = "run-not-found"
    title = "No such run"
    detail = "There is no run with this id among yours; GET /agent/threads/{id} lists them."


class ThreadNotFound(NotFound):
    slug = "thread-not-found"
    title = "No such conversation"
    detail = "There is no conversation with this id among yours; GET /agent/threads lists them."


class RunExists(Problem):
    status = 409
    slug = "run-exists"
    title = "There is a run with this id"
    detail = "Follow it: GET /agent/runs/{id}/events. Give a new run an id of its own."


class ThreadElsewhere(Problem):
    status = 409
    slug = "thread-in-another-workspace"
    title = "This conversation belongs to another workspace"
    detail = "Name its workspace in forwardedProps.workspace, or begin another conversation."


class ThreadBusy(Problem):
    status = 409
    slug = "thread-busy"
    title = "A run of this conversation is on"
    detail = (
        "Follow it by POST /agent/connect, cancel it, or send ifRunning: cancel in forwardedProps."
    )


class DeadLetterNotFound(NotFound):
    slug = "dead-letter-not-found"
    title = "No such dead letter"
    detail = "GET /admin/stream/dead-letters lists them."


class DeadLetterClosed(Problem):
    status = 409
    slug = "dead-letter-closed"
    title = "The dead letter has been replayed or discarded before"
    detail = "GET /admin/stream/dead-letters?state=closed tells by whom."


class DeadLetterIncomplete(Problem):
    status = 409
    slug = "dead-letter-incomplete"
    title = "Only a part of the entry was kept, so it cannot be replayed"
    detail = "Let its producer publish it again, then discard the dead letter."


class SlowBody(Problem):
    status = 408
    slug = "body-too-slow"
    title = "The request body did not come in time"
    detail = "A large body has to be sent within 30 seconds. Send a smaller one, or send it again."


class BodyTooLarge(Problem):
    status = 413
    slug = "body-too-large"
    title = "The request body is too large"


class InvalidRequest(Problem):
    status = 422
    slug = "invalid-request"
    title = "The request is not valid"
    detail = "Correct the named fields and send it again."


class WrongPassword(InvalidRequest):
    slug = "wrong-password"
    title = "The current password is not right"
    detail = "Several failures lock the account: then the right one is refused for a while too."


class PasswordRejected(InvalidRequest):
    slug = "password-rejected"
    title = "This password may not be set"


class LinkNotValid(InvalidRequest):
    slug = "link-not-valid"
    title = "This link cannot be used any more"
    detail = "It was used or has expired: ask for a new one."


class ProofRejected(InvalidRequest):
    slug = "proof-rejected"
    title = "The password or the code is not right"
    detail = "A code can be used once: wait for the next. Several failures lock the account."


class SecondFactorOn(Problem):
    status = 409
    slug = "second-factor-on"
    title = "You have a second factor"
    detail = "To take another one, remove it first: POST /auth/mfa/disable."


class SecondFactorOff(Problem):
    status = 409
    slug = "second-factor-off"
    title = "You have no second factor"
    detail = "Begin with POST /auth/mfa/setup."


class RegistrationClosed(Problem):
    status = 403
    slug = "registration-closed"
    title = "Accounts are not made this way here"
    detail = "Ask an administrator for an account or an invitation."


class MailNotConfigured(Problem):
    status = 409
    slug = "mail-not-configured"
    title = "This server sends no mail"
    detail = (
        "Ask an administrator: POST /admin/users/{id}/reset-link gives a link to pass on. "
        "Operators set SMTP_URL to have it sent."
    )


class DatabaseUnavailable(Problem):
    status = 503
    slug = "database-unavailable"
    title = "The database does not answer"
    detail = "Live streams go on; what needs stored data does not. Try again in a few seconds."
    headers = _RETRY_LATER


class StreamUnavailable(Problem):
    status = 503
    slug = "stream-unavailable"
    title = "Redis does not answer"
    detail = "Nothing can be said of the stream or added to it. Try again in a few seconds."
    headers = _RETRY_LATER


class Busy(Problem):
    status = 503
    slug = "busy"
    title = "Too many passwords are being checked"
    detail = "That takes time, and many wait for it. Try again in a few seconds."
    headers = _RETRY_LATER


class TooManyBodiesOfUser(Problem):
    status = 429
    slug = "too-many-large-bodies"
    title = "Another large request of yours is still being read"
    detail = "Bodies above 64 KiB are read one after the other. Send them so."
    headers = _RETRY_LATER


class TooManyBodies(Problem):
    status = 503
    slug = "busy-with-large-bodies"
    title = "Too many large requests are being read"
    detail = "Bodies above 64 KiB are read a few at a time. Try again in a few seconds."
    headers = _RETRY_LATER


class SecondFactorUnreadable(Problem):
    status = 503
    slug = "second-factor-unreadable"
    title = "Your second factor cannot be checked here"
    detail = "Use a recovery code in place of it, and tell the operator: a key is not set."
    headers = _RETRY_LATER


class TooManyStreams(Problem):
    status = _ANOTHER_INSTANCE
    slug = "too-many-streams"
    title = "No stream is free on this instance"
    detail = "It holds as many streams as it may. Try again in a few seconds."
    headers = _RETRY_LATER


class TooManyStreamsOfUser(Problem):
    status = 429
    slug = "too-many-streams-of-user"
    title = "You have too many streams open"
    detail = "Close one, or follow several jobs on one stream: GET /events."
    headers = _RETRY_LATER


class TooManyRuns(Problem):
    status = 429
    slug = "too-many-runs"
    title = "You have too many runs on"
    detail = "Wait for one to end, or cancel one: POST /agent/runs/{id}/cancel."
    headers = _RETRY_LATER


class ConversationTooLarge(Problem):
    status = 413
    slug = "conversation-too-large"
    title = "This conversation holds as much as it may"
    detail = "Begin another one, with another threadId."


class TooMuchKept(Problem):
    status = 429
    slug = "too-much-kept"
    title = "Your conversations hold as much as they may"
    detail = "Delete some that you need no more: GET /agent/threads, DELETE /agent/threads/{id}."


class RunLogUnavailable(Problem):
    status = 503
    slug = "run-log-unavailable"
    title = "Redis does not answer"
    detail = "A run could be neither resumed nor cancelled. Try again in a few seconds."
    headers = _RETRY_LATER


class TooManyRequests(Problem):
    status = 429
    slug = "too-many-requests"
    title = "Too many requests"
    detail = "Try again when the time in Retry-After, in seconds, is over."
    headers: Mapping[str, str] | None = _RETRY_LATER


class TokensSpent(TooManyRequests):
    slug = "tokens-spent"
    title = "You have used your tokens of this day"
    detail = "There are more at midnight by UTC: try again after Retry-After, in seconds."


class TicketsUnavailable(Problem):
    status = 503
    slug = "tickets-unavailable"
    title = "Tickets cannot be taken now"
    detail = "Redis does not answer. Try again in a few seconds, or send a bearer token."
    headers = _RETRY_LATER


class Draining(Problem):
    status = _ANOTHER_INSTANCE
    slug = "draining"
    title = "This instance is being stopped"
    detail = "Connect again: another instance will answer."
    headers = RETRY_SOON


_FROM_SERVICES: dict[type[Exception], type[Problem]] = {
    EmailRejectedError: InvalidRequest,
    InputTooLargeError: InvalidRequest,
    PasswordRejectedError: PasswordRejected,
    PasswordsBusyError: Busy,
    TooManyBodiesOfUserError: TooManyBodiesOfUser,
    TooManyBodiesError: TooManyBodies,
    LinkNotValidError: LinkNotValid,
    ProofRejectedError: ProofRejected,
    WrongCredentialsError: WrongCredentials,
    SecondFactorRequiredError: SecondFactorRequired,
    WrongPasswordError: WrongPassword,
    InvalidTokenError: NotAuthenticated,
    RefreshRacedError: RefreshRaced,
    TicketsUnavailableError: TicketsUnavailable,
    SessionNotFoundError: SessionNotFound,
    SecondFactorRejectedError: SecondFactorRejected,
    DecryptionError: SecondFactorUnreadable,
    SecondFactorOnError: SecondFactorOn,
    SecondFactorOffError: SecondFactorOff,
    RegistrationClosedError: RegistrationClosed,
    MailNotConfiguredError: MailNotConfigured,
    AccountNotFoundError: AccountNotFound,
    InvitationNotFoundError: InvitationNotFound,
    MembershipRejectedError: InvalidRequest,
    WorkspaceNotFoundError: WorkspaceNotFound,
    MemberNotFoundError: MemberNotFound,
    UserExistsError: AccountExists,
    LastAdminError: LastAdmin,
    WorkspaceExistsError: WorkspaceExists,
    WorkspaceInUseError: WorkspaceInUse,
    DefaultWorkspaceError: DefaultWorkspace,
    JobNotFoundError: JobNotFound,
    CursorRejectedError: BadCursor,
    AgentDrainingError: Draining,
    DeadLetterNotFoundError: DeadLetterNotFound,
    DeadLetterClosedError: DeadLetterClosed,
    DeadLetterIncompleteError: DeadLetterIncomplete,
    StreamUnavailableError: StreamUnavailable,
    RunExistsError: RunExists,
    RunLogUnavailableError: RunLogUnavailable,
    RunNotFoundError: RunNotFound,
    ThreadBusyError: ThreadBusy,
    ThreadElsewhereError: ThreadElsewhere,
    ThreadNotFoundError: ThreadNotFound,
    TooManyRunsError: TooManyRuns,
    ThreadFullError: ConversationTooLarge,
    UserFullError: TooMuchKept,
    LogsFullError: TooManyStreams,
    TooManyLogsError: TooManyStreamsOfUser,
}


def documented(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of a route that can answer with these problems, by their types and titles.

    src/web/openapi.py makes references to declared responses of them.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for problem in problems:
        response = responses.setdefault(problem.status, {"description": "", PROBLEMS: {}})
        response[PROBLEMS][problem.slug] = problem.title
    return responses


def respond(problem: Problem) -> Response:
    document = ProblemDocument(
        type=TYPE_PREFIX + problem.slug,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        errors=problem.errors,
    )
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def unreadable_body() -> InvalidRequest:
    fault = FieldError(field="body", message="cannot be read as the type that it is sent as")
    return InvalidRequest(errors=[fault])


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(LimitReachedError, _on_limit)
    for exception in (*_FROM_SERVICES, *DATABASE_ERRORS):
        app.add_exception_handler(exception, _on_error)


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - how the handler is registered
    return respond(error)


async def _on_error(_request: Request, error: Exception) -> Response:
    for kind, problem in _FROM_SERVICES.items():
        if isinstance(error, kind):
            return respond(problem(errors=_faults_of(error)))
    if isinstance(error, DATABASE_ERRORS) and is_outage(error):
        logger.warning("database_unavailable", error=str(error))
        return respond(DatabaseUnavailable())
    raise error


def _faults_of(error: Exception) -> list[FieldError] | None:
    if not isinstance(error, FieldFaultError):
        return None
    return [FieldError(field=f"body.{error.field}", message=str(error))]


async def _on_limit(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LimitReachedError)  # noqa: S101 - how the handler is registered
    problem = TokensSpent() if isinstance(error, TokensSpentError) else TooManyRequests()
    problem.headers = {"Retry-After": str(error.retry_after)}
    return respond(problem)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - how the handler is registered
    if error.status_code == NotFound.status:
        return respond(NotFound())
    if error.status_code == _UNREADABLE:
        return respond(unreadable_body())
    problem = Problem(str(error.detail))
    problem.status = error.status_code
    problem.slug = str(error.detail).lower().replace(" ", "-")
    problem.title = str(error.detail)
    problem.headers = error.headers or {}
    return respond(problem)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - how the handler is registered
    return respond(invalid_request(error.errors()))


def invalid_request(errors: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Of Pydantic's errors the first ones, without the input: it may be a password."""
    return InvalidRequest(
        errors=[
            FieldError(field=".".join(map(str, item["loc"])), message=item["msg"])
            for item in islice(errors, _ERRORS_SHOWN)
        ]
    )
