"""Tool calls of users: who may, with what, and what became of it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from src.models.tools import Tool
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE, WorkspaceRow
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.services.audit_logger import Outcome as AuditOutcome
from src.services.job_service import JobService
from src.services.litellm_client import LiteLLMClient, ToolDescription
from src.services.rbac_service import NotPermittedError, check
from src.services.submission_service import Order, Outcome, SubmissionService
from src.services.tool_catalogue import CATALOGUE, ArgumentCheck, ToolKind
from src.services.upstream_errors import UnknownToolError
from src.utils.database import Database

Json = Any

_LIST_KEPT_SECONDS = 30.0


class WorkspaceNotFoundError(Exception):
    """There is no such workspace, or none that the user may know of."""


class ToolService:
    def __init__(  # noqa: PLR0913 - all that a call passes through
        self,
        database: Database,
        *,
        gateway: LiteLLMClient,
        arguments: ArgumentCheck,
        submissions: SubmissionService,
        jobs: JobService,
        audit: AuditLogger,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._arguments = arguments
        self._submissions = submissions
        self._jobs = jobs
        self._audit = audit
        self._list_lock = asyncio.Lock()
        self._listed: tuple[float, list[ToolDescription]] | None = None

    async def available(self, user: User, workspace: str | None = None) -> list[Tool]:
        """The tools of the gateway that the user may use in a workspace.

        Raises WorkspaceNotFoundError and UpstreamError.
        """
        await self.place(user, workspace)
        return [
            Tool(
                name=one.name,
                title=one.title,
                description=one.description,
                writes=kind.writes,
                starts_job=kind.job_kind is not None,
                input_schema=self._arguments.schema(kind),
            )
            for one in await self._list()
            if (kind := CATALOGUE.get(one.name)) and _may(user, kind, workspace)
        ]

    async def call(
        self,
        user: User,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Outcome:
        """Call a tool for a user; the outcome names the job where one was accepted.

        Raises WorkspaceNotFoundError, NotPermittedError, ArgumentsRefusedError, UpstreamError, and
        the errors of submissions.
        """
        place = workspace or DEFAULT_WORKSPACE
        try:
            outcome = await self._call(user, name, arguments, workspace, idempotency_key)
        except Exception as error:
            denied = isinstance(error, NotPermittedError | WorkspaceNotFoundError)
            how = AuditOutcome.DENIED if denied else AuditOutcome.FAILURE
            await self._record(user, name, how, workspace=place, reason=_reason(error))
            raise
        about = {"job_id": outcome.job_id} if outcome.job_id else {}
        await self._record(user, name, AuditOutcome.SUCCESS, workspace=place, **about)
        return outcome

    async def _call(
        self,
        user: User,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None,
        key: str | None,
    ) -> Outcome:
        kind = CATALOGUE.get(name)
        if kind is None:
            raise UnknownToolError("There is no tool of this name.")
        place = await self.place(user, workspace)
        check(user, kind.permission, place)
        checked = await self._arguments.check(kind, arguments)
        if "job_id" in checked:
            await self._jobs.check_visible(user, checked["job_id"])

        async def send() -> Json:
            return await self._gateway.call_tool(name, checked, reads_only=not kind.writes)

        if kind.writes:
            return await self._submissions.submit(Order(user, kind, checked, place, key), send)
        return Outcome(await send())

    async def place(self, user: User, workspace: str | None) -> str:
        """The workspace by name. Raises WorkspaceNotFoundError."""
        place = workspace or DEFAULT_WORKSPACE
        if user.role_in(place) is None:
            raise WorkspaceNotFoundError
        known = {DEFAULT_WORKSPACE, *(one.workspace for one in user.memberships)}
        if place not in known:
            # An administrator's role counts everywhere, but only where there is something.
            async with self._database.transaction() as session:
                if await session.get(WorkspaceRow, place) is None:
                    raise WorkspaceNotFoundError
        return place

    async def _list(self) -> list[ToolDescription]:
        async with self._list_lock:
            now = time.monotonic()
            if self._listed is None or now - self._listed[0] > _LIST_KEPT_SECONDS:
                self._listed = now, await self._gateway.list_tools()
            return self._listed[1]

    async def _record(self, user: User, name: str, outcome: AuditOutcome, **details: str) -> None:
        tool = name if name in CATALOGUE else "unknown"
        await self._audit.record(
            AuditEvent(
                Action.TOOL_CALL,
                outcome,
                actor_id=user.id,
                actor=user.email,
                target=f"tool:{tool}",
                details=details,
            )
        )


def _may(user: User, kind: ToolKind, workspace: str | None) -> bool:
    try:
        check(user, kind.permission, workspace)
    except NotPermittedError:
        return False
    return True


def _reason(error: Exception) -> str:
    return type(error).__name__.removesuffix("Error")
