"""Builds and stops the calls of Shield's tools."""

from dataclasses import dataclass
from typing import Self

from src.composition.jobs import Jobs
from src.config import Settings
from src.services.audit_logger import AuditLogger
from src.services.litellm_client import LiteLLMClient
from src.services.tools.call_history import CallHistory
from src.services.tools.catalogue import ArgumentChecker
from src.services.tools.ssrf_guard import SsrfGuard
from src.services.tools.submissions import SubmissionService
from src.services.tools.tool_service import ToolService
from src.services.uploads.upload_service import UploadService
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import Database


@dataclass(frozen=True, slots=True)
class Tools:
    service: ToolService
    submissions: SubmissionService
    history: CallHistory
    ssrf_guard: SsrfGuard

    @classmethod
    def build(  # noqa: PLR0913 - dependencies
        cls,
        settings: Settings,
        *,
        database: Database,
        gateway: LiteLLMClient,
        jobs: Jobs,
        audit: AuditLogger,
        uploads: UploadService,
        background: BackgroundJobs,
    ) -> Self:
        ssrf_guard = SsrfGuard(allow_private=settings.TOOLS_ALLOW_PRIVATE_ADDRESSES)
        submissions = SubmissionService(
            settings, database, jobs.announcer, jobs.reconciler, background
        )
        history = CallHistory(settings, database, background)
        service = ToolService(
            database,
            gateway=gateway,
            arguments=ArgumentChecker(settings, ssrf_guard),
            submissions=submissions,
            jobs=jobs.service,
            audit=audit,
            uploads=uploads,
            history=history,
            calls_per_user=settings.CALLS_PER_USER,
        )
        return cls(service, submissions, history, ssrf_guard)

    async def stop(self) -> None:
        """Wait for running calls, whose outcomes may then still be stored in the background."""
        await self.service.wait_closed()
        self.submissions.stop()
