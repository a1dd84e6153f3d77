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
from typing import Any
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
from src.services.gateway.errors import StrangeAnswerError, UpstreamError
from src.services.jobs.announcer import Announcement, JobAnnouncer
from src.services.jobs.reconciler import JobReconciler
from src.services.tools.catalogue import JOB_KINDS, ToolDefinition
from src.services.tools.errors import (
    ArgumentsRefusedError,
    KeyReusedError,
    OutcomeUnknownError,
    StillRunningError,
    TooManyJobsError,
)
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import DATABASE_ERRORS, Database, is_bad_data
from src.utils.redis import Backoff

logger = structlog.get_logger(__name__)

Json = Any
Send = Callable[[], Awaitable[Json]]

# Jobs without events, and idempotency keys, expire after this time.
_RUNS_MAX = timedelta(hours=24)
# How long a repeated call waits for the first one, and the poll interval, in seconds.
_WAIT_FOR_FIRST = 10.0
_LOOK_EVERY = 0.1
# How long to keep asking for jobs that may have ended without an event, in seconds.
_WAIT_FOR_STANDINGS = 1.0
# A call without an answer counts as a running job for at least this long.
_COUNTS_UNANSWERED = timedelta(minutes=10)
# Added to the timeout of a call. After both, a call without a stored outcome counts as lost.
_LOST_AFTER = timedelta(seconds=30)
_JOB_ID_MAX = 200
# First and longest pause between attempts to store an outcome, in seconds.
_KEPT_AGAIN, _KEPT_AGAIN_MAX = 0.5, 10.0


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
        asked = [self.tool.name, self.workspace, self.arguments]
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


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
class _Answered:
    """A call that the tool has answered. `announced` is whether its job was published to the stream."""

    submission_id: UUID
    order: ToolCallRequest
    outcome: SubmissionOutcome
    at: datetime
    announced: bool = False

    @property
    def announcement(self) -> Announcement:
        order = self.order
        assert self.outcome.job_id is not None  # noqa: S101 - only jobs are announced
        assert order.tool.job_kind is not None  # noqa: S101
        return Announcement(
            self.submission_id,
            self.outcome.job_id,
            order.tool.job_kind,
            order.user.id,
            order.workspace,
            self.at,
        )


class SubmissionService:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        announcer: JobAnnouncer,
        silent: JobReconciler,
        background: BackgroundJobs,
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._silent = silent
        self._background = background
        self._stopping = asyncio.Event()
        self._jobs_per_user = settings.JOBS_PER_USER
        self._lost_after = timedelta(seconds=settings.LITELLM_TIMEOUT_SECONDS) + _LOST_AFTER

    async def submit(self, order: ToolCallRequest, send: Send) -> SubmissionOutcome:
        """Send a writing call, or return the outcome of an earlier call with the same key.

        Args:
            order: The call.
            send: Sends it and returns the result of the tool.

        Raises:
            TooManyJobsError: The user has too many running jobs.
            KeyReusedError: The idempotency key was used for another call.
            StillRunningError: The first call with this key is still running.
            OutcomeUnknownError: The outcome of the first call with this key is unknown.
            ArgumentsRefusedError: `send` rejected an argument.
            UpstreamError: `send` failed.
        """
        first = await self._begin(order)
        if isinstance(first, SubmissionOutcome):
            return first
        try:
            result = await send()
            outcome = SubmissionOutcome(result, _job_id(result) if order.tool.job_kind else None)
        except (UpstreamError, ArgumentsRefusedError) as error:
            outcome_unknown = isinstance(error, UpstreamError) and error.outcome_unknown
            await self._failed(first, outcome_unknown=outcome_unknown)
            raise
        answered = _Answered(first, order, outcome, _now())
        if not await self._keep(answered):
            self._background.start(self._keep_on(answered))
        return outcome

    def stop(self) -> None:
        """Let background attempts to store outcomes end after at most one more."""
        self._stopping.set()

    async def _begin(self, order: ToolCallRequest) -> UUID | SubmissionOutcome:
        """Record a call and return its id, or return the outcome of the first call with its key."""
        gone: set[str] = set()
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_STANDINGS
        while True:
            try:
                return await self._note_or_wait(order, gone)
            except TooManyJobsError as error:
                # Without holding the user's lock: a slow orchestrator must not block other calls.
                more = await self._silent.gone(error.silent)
                if not more or asyncio.get_running_loop().time() > deadline:
                    raise
                gone |= more

    async def _note_or_wait(
        self, order: ToolCallRequest, gone: Collection[str]
    ) -> UUID | SubmissionOutcome:
        """Like `_begin`. `gone` are jobs known to have ended, although no event said so."""
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_FIRST
        while True:
            async with self._database.transaction() as session:
                await submissions.lock_user(session, order.user.id)
                first = order.key and await submissions.by_key(session, order.user.id, order.key)
                if first and first.created_at < _now() - _RUNS_MAX:
                    await submissions.remove(session, first.id)
                    first = None
                if not first:
                    if order.tool.job_kind:
                        await self._check_limit(session, order.user.id, gone)
                    return _note(session, order)
                if (outcome := self._outcome_of(first, order)) is not None:
                    return outcome
            if asyncio.get_running_loop().time() > deadline:
                raise StillRunningError
            await asyncio.sleep(_LOOK_EVERY)

    def _outcome_of(self, first: SubmissionRow, order: ToolCallRequest) -> SubmissionOutcome | None:
        """The outcome of the first call with a key, None while it is running."""
        if first.digest != order.digest:
            raise KeyReusedError
        if first.state == SubmissionState.DONE.value:
            return SubmissionOutcome(first.result, first.job_id, replayed=True)
        lost = first.created_at < _now() - self._lost_after
        if lost or first.state == SubmissionState.UNKNOWN.value:
            raise OutcomeUnknownError
        return None

    async def _check_limit(
        self, session: AsyncSession, user_id: UUID, gone: Collection[str]
    ) -> None:
        maximum, now = self._jobs_per_user, _now()
        since = now - max(self._lost_after, _COUNTS_UNANSWERED)
        unanswered = await submissions.count_unanswered(session, user_id, JOB_KINDS, since)
        running = await submissions.running_jobs(
            session, user_id, now - _RUNS_MAX, without=gone, limit=maximum
        )
        if unanswered + len(running) >= maximum:
            silent = [job.id for job in running if self._silent.is_silent_since(job.updated_at)]
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

    async def _keep_on(self, answered: _Answered) -> None:
        backoff = Backoff(_KEPT_AGAIN, _KEPT_AGAIN_MAX)
        while not (self._stopping.is_set() or await self._keep(answered)):
            await backoff.wait(self._stopping)

    async def _keep(self, answered: _Answered) -> bool:
        """Store the outcome and announce the job. Returns False if this must be retried."""
        try:
            async with self._database.transaction() as session:
                await self._store(session, answered)
        except DATABASE_ERRORS as error:
            logger.warning(
                "submission_not_kept",
                submission_id=str(answered.submission_id),
                job_id=answered.outcome.job_id,
                user=str(answered.order.user.id),
                error=str(error),
            )
            await self._tell(answered)
            return is_bad_data(error)
        return True

    async def _store(self, session: AsyncSession, answered: _Answered) -> None:
        order, outcome = answered.order, answered.outcome
        if outcome.job_id is not None:
            if await job_rows.belongs_to_other_user(session, outcome.job_id, order.user.id):
                answered.announced = True
            else:
                await self._tell(answered)
                await job_rows.merge(session, [_job(order, outcome.job_id, answered.at)])
        if row := await session.get(SubmissionRow, answered.submission_id):
            row.state = SubmissionState.DONE.value
            row.result = outcome.result
            row.job_id = outcome.job_id
            row.announced = answered.announced or outcome.job_id is None
            row.finished_at = answered.at

    async def _tell(self, answered: _Answered) -> None:
        """Publish the owner of the job to the stream, once."""
        if answered.outcome.job_id is not None and not answered.announced:
            answered.announced = await self._announcer.announce(answered.announcement)


def _note(session: AsyncSession, order: ToolCallRequest) -> UUID:
    row = SubmissionRow(
        id=uuid4(),
        user_id=order.user.id,
        key=order.key,
        digest=order.digest,
        tool=order.tool.name,
        workspace=order.workspace,
        state=SubmissionState.SENT.value,
        announced=True,
        created_at=_now(),
    )
    session.add(row)
    return row.id


def _job(order: ToolCallRequest, job_id: str, now: datetime) -> JobChange:
    milliseconds = round(now.timestamp() * 1000)
    return JobChange(
        job_id,
        milliseconds,
        milliseconds,
        owner=order.user.id,
        workspace=order.workspace,
        kind=order.tool.job_kind,
        submitted=True,
    )


def _job_id(result: Json) -> str:
    """Extract the job id from the result of a tool that starts jobs.

    Raises:
        StrangeAnswerError: There is none, or it is invalid.
    """
    job_id = result.get("job_id") if isinstance(result, dict) else None
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _JOB_ID_MAX:
        raise StrangeAnswerError("The tool names no job.")
    if not job_id.isprintable() or job_id != job_id.strip():
        raise StrangeAnswerError("The tool names a job that cannot be.")
    return job_id


def _now() -> datetime:
    return datetime.now(UTC)
