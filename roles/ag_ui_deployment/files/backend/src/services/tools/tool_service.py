"""Tool calls of users: permission checks, limits, and audit entries."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from src.models.job import ENDED, Job
from src.models.tools import CancelJob, GetJobStatus, IngestDoc, ToolInfo
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE, WorkspaceRow
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger
from src.services.audit_logger import Outcome as AuditOutcome
from src.services.gateway.errors import UnknownToolError
from src.services.jobs.job_service import JobService
from src.services.litellm_client import LiteLLMClient, ToolDescription
from src.services.rbac_service import NotPermittedError, check, may
from src.services.tools.call_history import CallHistory, EndedCall
from src.services.tools.catalogue import CANCEL_JOB, CATALOGUE, ArgumentChecker, parse_arguments
from src.services.tools.errors import (
    ArgumentsRefusedError,
    CannotCancelError,
    JobEndedError,
    TooManyCallsError,
    WorkspaceNotYoursError,
)
from src.services.tools.submissions import (
    SentCall,
    SubmissionOutcome,
    SubmissionService,
    ToolCallRequest,
)
from src.services.uploads.errors import (
    UploadNotFoundError,
    UploadsDisabledError,
    UploadStorageError,
)
from src.services.uploads.upload_service import UploadService
from src.utils.database import DATABASE_ERRORS, Database, is_outage
from src.utils.errors import FieldFault
from src.utils.json_types import Json, JsonObject

_LIST_CACHE_SECONDS = 30.0
_GRACE_SECONDS = 2.0
_RECORDED_ID_MAX = 200


class ToolService:
    def __init__(  # noqa: PLR0913 - dependencies
        self,
        database: Database,
        *,
        gateway: LiteLLMClient,
        arguments: ArgumentChecker,
        submissions: SubmissionService,
        jobs: JobService,
        audit: AuditLogger,
        history: CallHistory,
        uploads: UploadService,
        calls_per_user: int,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._arguments = arguments
        self._submissions = submissions
        self._jobs = jobs
        self._audit = audit
        self._history = history
        self._uploads = uploads
        self._calls_per_user = calls_per_user
        self._running_calls: Counter[UUID] = Counter()
        self._writing_tasks: set[asyncio.Task[SubmissionOutcome]] = set()
        self._list_task: asyncio.Task[list[ToolDescription]] | None = None
        self._listed_at = 0.0

    async def available(self, user: User, workspace: str | None = None) -> list[ToolInfo]:
        """List the tools of the gateway that the user may call in a workspace.

        Args:
            user: The user.
            workspace: The workspace; None for the default one.

        Raises:
            WorkspaceNotYoursError: The user does not belong to it, or it does not exist.
            UpstreamError: The list is not available.
        """
        await self.resolve_workspace(user, workspace)
        return [
            ToolInfo(
                name=tool.name,
                title=tool.title,
                description=tool.description,
                writes=definition.writes,
                starts_job=definition.job_kind is not None,
                input_schema=self._arguments.schema(definition),
            )
            for tool in await self._list()
            if (definition := CATALOGUE.get(tool.name))
            and may(user, definition.permission, workspace)
        ]

    async def call(
        self,
        user: User,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> SubmissionOutcome:
        """Call a tool for a user.

        If the caller is cancelled, a writing call continues, as it does at the tool, so that an accepted
        job gets its owner and its audit entry.

        Args:
            user: The user.
            name: The tool.
            arguments: Its arguments, as JSON.
            workspace: The workspace of the call; None for the default one.
            idempotency_key: Identifies repetitions of a writing call.

        Returns:
            The result, and the job if the tool accepted one.

        Raises:
            UnknownToolError: There is no such tool.
            WorkspaceNotYoursError: The user does not belong to the workspace, or it does not exist.
            NotPermittedError: The user may not call the tool there.
            TooManyCallsError: The user has too many concurrent calls in this instance.
            ArgumentsRefusedError: An argument is invalid.
            JobNotFoundError: The call names a job that the user may not see.
            UpstreamError: The call failed.
            UploadStorageError: An uploaded document cannot be read.
            TooManyJobsError: The user has too many running jobs.
            KeyReusedError: The idempotency key was used for another call.
            StillRunningError: The first call with this key is still running.
            OutcomeUnknownError: The outcome of the first call with this key is unknown.
        """
        definition = CATALOGUE.get(name)
        recorded_call = self._call_recorded(user, name, arguments, workspace, idempotency_key)
        if definition is None or not definition.writes:
            return await recorded_call
        task = asyncio.create_task(recorded_call, name=f"call-{name}")
        self._writing_tasks.add(task)
        task.add_done_callback(self._writing_tasks.discard)
        return await asyncio.shield(task)

    async def cancel_job(self, user: User, job_id: str) -> Job:
        """Ask Shield to cancel a job. Its events say when it has ended.

        Returns:
            The job, which may still be running.

        Raises:
            JobNotFoundError: There is no such job, or the user may not see it.
            JobEndedError: The job has ended.
            CannotCancelError: The gateway has no tool that cancels jobs.
            NotPermittedError: The user may not call tools that write in the workspace of the job.
            TooManyCallsError: The user has too many concurrent calls in this instance.
            UpstreamError: The call failed.
        """
        job = await self._jobs.get(user, job_id)
        check(user, CATALOGUE[CANCEL_JOB].permission, job.workspace)
        if job.status in ENDED:
            raise JobEndedError
        if all(tool.name != CANCEL_JOB for tool in await self._list()):
            raise CannotCancelError
        await self.call(user, CANCEL_JOB, {"job_id": job_id}, job.workspace)
        return await self._jobs.get(user, job_id)

    async def wait_closed(self) -> None:
        """Wait 2 s for running writing calls, then cancel them, which is recorded."""
        if not self._writing_tasks:
            return
        _, unfinished = await asyncio.wait(self._writing_tasks, timeout=_GRACE_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _call_recorded(
        self,
        user: User,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None,
        key: str | None,
    ) -> SubmissionOutcome:
        """Call a tool and record it in the audit log."""
        workspace_name = workspace or DEFAULT_WORKSPACE
        named_job = _named_job(name, arguments)
        ended = partial(
            EndedCall,
            user,
            name,
            workspace_name,
            arguments,
            started_at=datetime.now(UTC),
            job_id=named_job,
        )
        details: dict[str, Json] = {}
        if name == CANCEL_JOB:
            details["job_id"] = named_job
        try:
            outcome = await self._call(user, name, arguments, workspace, key)
        except (Exception, asyncio.CancelledError) as error:
            denied = isinstance(error, NotPermittedError | WorkspaceNotYoursError)
            audit_outcome = AuditOutcome.DENIED if denied else AuditOutcome.FAILURE
            self._history.add(ended(outcome=audit_outcome.value, error=error))
            await self._record(
                user,
                name,
                audit_outcome,
                workspace=workspace_name,
                reason=_reason(error),
                **details,
            )
            raise
        self._history.add(
            ended(outcome=AuditOutcome.SUCCESS.value, job_id=outcome.job_id or named_job)
        )
        if outcome.job_id:
            details["job_id"] = outcome.job_id
        if outcome.replayed:
            details["replayed"] = True
        await self._record(user, name, AuditOutcome.SUCCESS, workspace=workspace_name, **details)
        return outcome

    async def _call(
        self,
        user: User,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None,
        key: str | None,
    ) -> SubmissionOutcome:
        definition = CATALOGUE.get(name)
        if definition is None:
            raise UnknownToolError("There is no tool of this name.")
        workspace_name = await self.resolve_workspace(user, workspace)
        check(user, definition.permission, workspace_name)
        with self._call_slot(user.id):
            parsed = parse_arguments(definition, arguments)
            if isinstance(parsed, GetJobStatus):
                await self._jobs.check_visible(user, parsed.job_id)
            elif isinstance(parsed, CancelJob):
                job = await self._jobs.get(user, parsed.job_id)
                check(user, definition.permission, job.workspace)

            async def send() -> SentCall:
                checked = await self._arguments.check(parsed)
                if isinstance(parsed, IngestDoc) and parsed.upload_id is not None:
                    document = await self._document(user, parsed.upload_id, workspace_name)
                    checked = document | checked
                result = await self._gateway.call_tool(
                    name, checked, reads_only=not definition.writes
                )
                return SentCall(checked, result)

            if definition.writes:
                stored_arguments = parsed.model_dump(exclude_unset=True)
                return await self._submissions.submit(
                    ToolCallRequest(user, definition, stored_arguments, workspace_name, key), send
                )
            return SubmissionOutcome((await send()).result)

    async def _document(self, user: User, upload_id: str, workspace: str) -> JsonObject:
        """The arguments of the tool for an uploaded document."""
        try:
            path, name = await self._uploads.document(user, UUID(upload_id), workspace)
        except UploadsDisabledError as error:
            raise ArgumentsRefusedError(FieldFault("upload_id", error.detail)) from None
        except UploadNotFoundError:
            message = f"is none of your complete uploads in the workspace {workspace}"
            raise ArgumentsRefusedError(FieldFault("upload_id", message)) from None
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            # A domain error says that the call had no effect.
            raise UploadStorageError from error
        return {"file_path": path} | ({"source_name": name} if name else {})

    @contextmanager
    def _call_slot(self, user_id: UUID) -> Iterator[None]:
        """Count a call of the user for the duration of the block.

        Raises:
            TooManyCallsError: The user has too many concurrent calls.
        """
        if self._running_calls[user_id] >= self._calls_per_user:
            raise TooManyCallsError
        self._running_calls[user_id] += 1
        try:
            yield
        finally:
            self._running_calls[user_id] -= 1
            if not self._running_calls[user_id]:
                del self._running_calls[user_id]

    async def resolve_workspace(self, user: User, workspace: str | None) -> str:
        """Resolve a workspace (None: the default one) to its name.

        Raises:
            WorkspaceNotYoursError: The user does not belong to it, or it does not exist.
        """
        workspace_name = workspace or DEFAULT_WORKSPACE
        if user.role_in(workspace_name) is None:
            raise WorkspaceNotYoursError
        known = {DEFAULT_WORKSPACE, *(membership.workspace for membership in user.memberships)}
        if workspace_name not in known:
            # An administrator may use all workspaces, so check that this one exists.
            async with self._database.transaction() as session:
                if await session.get(WorkspaceRow, workspace_name) is None:
                    raise WorkspaceNotYoursError
        return workspace_name

    async def _list(self) -> list[ToolDescription]:
        """The cached tool list of the gateway. Concurrent callers share one request."""
        now = time.monotonic()
        if self._list_task is None or now - self._listed_at > _LIST_CACHE_SECONDS:
            self._listed_at = now
            self._list_task = asyncio.create_task(self._gateway.list_tools(), name="tool-list")
            self._list_task.add_done_callback(self._forget_failure)
        return await asyncio.shield(self._list_task)

    def _forget_failure(self, task: asyncio.Task[list[ToolDescription]]) -> None:
        if task is self._list_task and (task.cancelled() or task.exception()):
            self._list_task = None

    async def _record(self, user: User, name: str, outcome: AuditOutcome, **details: Json) -> None:
        tool = name if name in CATALOGUE else "unknown"
        await self._audit.record(
            Actor.of(user).audit_event(Action.TOOL_CALL, f"tool:{tool}", details, outcome)
        )


def _named_job(name: str, arguments: Mapping[str, Json]) -> str | None:
    """The job that a call asks for or cancels; None if its tool has no such argument."""
    definition = CATALOGUE.get(name)
    if definition is None or "job_id" not in definition.arguments.model_fields:
        return None
    return str(arguments.get("job_id"))[:_RECORDED_ID_MAX]


def _reason(error: BaseException) -> str:
    return type(error).__name__.removesuffix("Error")
