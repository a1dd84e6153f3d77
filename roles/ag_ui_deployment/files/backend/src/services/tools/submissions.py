"""Submission of writing tool calls: at most once, idempotent, and with a limit of running jobs.

A call is recorded in PostgreSQL before it is sent. If it certainly had no effect, the record is deleted;
otherwise the call is never sent again. A call that the tool accepted succeeds even if its outcome cannot
be stored; storing is then retried in the background.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.job import JobChange
from src.models.submission import SubmissionRow, SubmissionState
from src.models.user import User
from src.repositories import jobs as job_rows
from src.repositories import submissions
from src.services.gateway.errors import InvalidResponseError, UpstreamError
from src.services.jobs.announcer import Announcement, JobAnnouncer
from src.services.jobs.reconciler import JobReconciler
from src.services.shield.event_types import subject_in
from src.services.tools.catalogue import JOB_KINDS, ToolDefinition
from src.services.tools.errors import (
    KeyReusedError,
    OutcomeUnknownError,
    StillRunningError,
    TooManyJobsError,
)
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import DATABASE_ERRORS, Database, is_bad_data
from src.utils.errors import DomainError
from src.utils.json_types import Json
from src.utils.redis import Backoff

logger = structlog.get_logger(__name__)

Send = Callable[[], Awaitable["SentCall"]]

# Jobs without events, and idempotency keys, expire after this time.
_MAX_AGE = timedelta(hours=24)
# How long a repeated call waits for the first one, and the poll interval, in seconds.
_REPEATED_CALL_TIMEOUT = 10.0
_POLL_SECONDS = 0.1
# How long to keep asking for jobs that may have ended without an event, in seconds.
_RECONCILE_TIMEOUT = 1.0
# A call without an answer counts as a running job for at least this long.
_UNANSWERED_COUNTED = timedelta(minutes=10)
# Added to the timeout of a call. After both, a call without a stored outcome counts as lost.
_LOST_AFTER = timedelta(seconds=30)
_MAX_JOB_ID = 200
# First and longest pause between attempts to store an outcome, in seconds.
_RETRY_MIN, _RETRY_MAX = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class ToolCallRequest:
    """A tool call for a user in a workspace. `key` is the idempotency key."""

    user: User
    tool: ToolDefinition
    arguments: Mapping[str, Json]
    workspace: str
    key: str | None = None

    @property
    def digest(self) -> str:
        """A hash of the call, to detect another call with the same idempotency key."""
        content = [self.tool.name, self.workspace, self.arguments]
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class SentCall:
    """A call that the tool has answered, with the arguments that it got."""

    arguments: Mapping[str, Json]
    result: Json

    @property
    def subject(self) -> str | None:
        """What a job of the call is about. The path of an upload means nothing to users."""
        name = self.arguments.get("source_name")
        return subject_in({"subject": name, **self.arguments})


@dataclass(frozen=True, slots=True)
class SubmissionOutcome:
    """The result of a tool call.

    `job_id` is the job that the tool accepted. `replayed` is true if the result is that of an earlier
    call with the same idempotency key, and nothing was sent.
    """

    result: Json
    job_id: str | None = None
    replayed: bool = False


@dataclass(slots=True)
class _AnsweredCall:
    """A call that the tool has answered. `announced` is whether its job was published to the stream."""

    submission_id: UUID
    request: ToolCallRequest
    outcome: SubmissionOutcome
    subject: str | None
    at: datetime
    announced: bool = False

    @property
    def announcement(self) -> Announcement:
        request = self.request
        assert self.outcome.job_id is not None  # noqa: S101 - only jobs are announced
        assert request.tool.job_kind is not None  # noqa: S101
        return Announcement(
            self.submission_id,
            self.outcome.job_id,
            request.tool.job_kind,
            request.user.id,
            request.workspace,
            self.at,
            self.subject,
        )


class SubmissionService:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        announcer: JobAnnouncer,
        reconciler: JobReconciler,
        background: BackgroundJobs,
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._reconciler = reconciler
        self._background = background
        self._stopping = asyncio.Event()
        self._jobs_per_user = settings.JOBS_PER_USER
        self._lost_after = timedelta(seconds=settings.LITELLM_TIMEOUT_SECONDS) + _LOST_AFTER

    async def submit(self, request: ToolCallRequest, send: Send) -> SubmissionOutcome:
        """Send a writing call, or return the outcome of an earlier call with the same key.

        Args:
            request: The call.
            send: Sends it.

        Raises:
            TooManyJobsError: The user has too many running jobs.
            KeyReusedError: The idempotency key was used for another call.
            StillRunningError: The first call with this key is still running.
            OutcomeUnknownError: The outcome of the first call with this key is unknown.
            UpstreamError: `send` failed.
            DomainError: `send` refused before it sent anything.
        """
        earlier = await self._begin(request)
        if isinstance(earlier, SubmissionOutcome):
            return earlier
        try:
            sent = await send()
            job_id = _job_id(sent.result) if request.tool.job_kind else None
            outcome = SubmissionOutcome(sent.result, job_id)
        except DomainError as error:
            outcome_unknown = isinstance(error, UpstreamError) and error.outcome_unknown
            await self._failed(earlier, outcome_unknown=outcome_unknown)
            raise
        call = _AnsweredCall(earlier, request, outcome, sent.subject, _now())
        if not await self._store_outcome(call):
            self._background.start(self._retry_storing(call))
        return outcome

    def stop(self) -> None:
        """Let background attempts to store outcomes end after at most one more."""
        self._stopping.set()

    async def _begin(self, request: ToolCallRequest) -> UUID | SubmissionOutcome:
        """Record a call and return its id, or return the outcome of the first call with its key."""
        ended_jobs: set[str] = set()
        deadline = asyncio.get_running_loop().time() + _RECONCILE_TIMEOUT
        while True:
            try:
                return await self._add_or_wait(request, ended_jobs)
            except TooManyJobsError as error:
                # Without holding the user's lock: a slow orchestrator must not block other calls.
                newly_ended = await self._reconciler.ended_jobs(error.silent)
                if not newly_ended or asyncio.get_running_loop().time() > deadline:
                    raise
                ended_jobs |= newly_ended

    async def _add_or_wait(
        self, request: ToolCallRequest, ended_jobs: Collection[str]
    ) -> UUID | SubmissionOutcome:
        """Like `_begin`. `ended_jobs` are jobs known to have ended, although no event said so."""
        deadline = asyncio.get_running_loop().time() + _REPEATED_CALL_TIMEOUT
        while True:
            async with self._database.transaction() as session:
                await submissions.lock_user(session, request.user.id)
                earlier = request.key and await submissions.by_key(
                    session, request.user.id, request.key
                )
                if earlier and earlier.created_at < _now() - _MAX_AGE:
                    await submissions.remove(session, earlier.id)
                    earlier = None
                if not earlier:
                    if request.tool.job_kind:
                        await self._check_limit(session, request.user.id, ended_jobs)
                    return _add_submission(session, request)
                if (outcome := self._outcome_of(earlier, request)) is not None:
                    return outcome
            if asyncio.get_running_loop().time() > deadline:
                raise StillRunningError
            await asyncio.sleep(_POLL_SECONDS)

    def _outcome_of(
        self, earlier: SubmissionRow, request: ToolCallRequest
    ) -> SubmissionOutcome | None:
        """The outcome of the first call with a key, None while it is running."""
        if earlier.digest != request.digest:
            raise KeyReusedError
        if earlier.state == SubmissionState.DONE.value:
            return SubmissionOutcome(earlier.result, earlier.job_id, replayed=True)
        lost = earlier.created_at < _now() - self._lost_after
        if lost or earlier.state == SubmissionState.UNKNOWN.value:
            raise OutcomeUnknownError
        return None

    async def _check_limit(
        self, session: AsyncSession, user_id: UUID, ended_jobs: Collection[str]
    ) -> None:
        maximum, now = self._jobs_per_user, _now()
        since = now - max(self._lost_after, _UNANSWERED_COUNTED)
        unanswered = await submissions.count_unanswered(session, user_id, JOB_KINDS, since)
        running = await submissions.running_jobs(
            session, user_id, now - _MAX_AGE, without=ended_jobs, limit=maximum
        )
        if unanswered + len(running) >= maximum:
            silent = [job.id for job in running if self._reconciler.is_silent_since(job.updated_at)]
            raise TooManyJobsError(silent)

    async def _failed(self, submission_id: UUID, *, outcome_unknown: bool) -> None:
        try:
            async with self._database.transaction() as session:
                if not outcome_unknown:
                    await submissions.remove(session, submission_id)
                elif row := await session.get(SubmissionRow, submission_id):
                    row.state = SubmissionState.UNKNOWN.value
        except DATABASE_ERRORS:
            # The record stays in the state "sent" and counts as lost after the timeout.
            logger.warning("submission_not_closed", submission_id=str(submission_id))

    async def _retry_storing(self, call: _AnsweredCall) -> None:
        backoff = Backoff(_RETRY_MIN, _RETRY_MAX)
        while not (self._stopping.is_set() or await self._store_outcome(call)):
            await backoff.wait(self._stopping)

    async def _store_outcome(self, call: _AnsweredCall) -> bool:
        """Store the outcome and announce the job. Returns False if this must be retried."""
        try:
            async with self._database.transaction() as session:
                await self._store(session, call)
        except DATABASE_ERRORS as error:
            logger.warning(
                "submission_not_kept",
                submission_id=str(call.submission_id),
                job_id=call.outcome.job_id,
                user=str(call.request.user.id),
                error=str(error),
            )
            await self._announce(call)
            return is_bad_data(error)
        return True

    async def _store(self, session: AsyncSession, call: _AnsweredCall) -> None:
        request, outcome = call.request, call.outcome
        if outcome.job_id is not None:
            if await job_rows.belongs_to_other_user(session, outcome.job_id, request.user.id):
                call.announced = True
            else:
                await self._announce(call)
                await job_rows.merge(session, [_job_change(call, outcome.job_id)])
        if row := await session.get(SubmissionRow, call.submission_id):
            row.state = SubmissionState.DONE.value
            row.result = outcome.result
            row.job_id = outcome.job_id
            row.announced = call.announced or outcome.job_id is None
            row.finished_at = call.at

    async def _announce(self, call: _AnsweredCall) -> None:
        """Publish the owner of the job to the stream, once."""
        if call.outcome.job_id is not None and not call.announced:
            call.announced = await self._announcer.announce(call.announcement)


def _add_submission(session: AsyncSession, request: ToolCallRequest) -> UUID:
    row = SubmissionRow(
        id=uuid4(),
        user_id=request.user.id,
        key=request.key,
        digest=request.digest,
        tool=request.tool.name,
        workspace=request.workspace,
        state=SubmissionState.SENT.value,
        announced=True,
        created_at=_now(),
    )
    session.add(row)
    return row.id


def _job_change(call: _AnsweredCall, job_id: str) -> JobChange:
    request, milliseconds = call.request, round(call.at.timestamp() * 1000)
    return JobChange(
        job_id,
        milliseconds,
        milliseconds,
        owner=request.user.id,
        workspace=request.workspace,
        kind=request.tool.job_kind,
        subject=call.subject,
        submitted=True,
    )


def _job_id(result: Json) -> str:
    """Extract the job id from the result of a tool that starts jobs.

    Raises:
        InvalidResponseError: There is none, or it is invalid.
    """
    job_id = result.get("job_id") if isinstance(result, dict) else None
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _MAX_JOB_ID:
        raise InvalidResponseError("The tool names no job.")
    if not job_id.isprintable() or job_id != job_id.strip():
        raise InvalidResponseError("The tool names a job that cannot be.")
    return job_id


def _now() -> datetime:
    return datetime.now(UTC)
