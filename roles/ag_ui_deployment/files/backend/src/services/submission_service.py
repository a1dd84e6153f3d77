"""Calls that write: sent once, limited, remembered, and what they start belongs to the caller.

A call is noted in PostgreSQL before it leaves, since nobody could tell afterwards whether it did.
What certainly had no effect is forgotten; what may have had one is never sent again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.submission import SubmissionRow, SubmissionState
from src.models.user import User
from src.repositories import jobs as job_rows
from src.repositories import submissions
from src.services.job_announcer import Announcement, JobAnnouncer
from src.services.job_summary import JobChange
from src.services.silent_jobs import SilentJobs
from src.services.tool_catalogue import ToolKind
from src.services.upstream_errors import StrangeAnswerError, UpstreamError
from src.utils.database import DATABASE_ERRORS, Database

logger = structlog.get_logger(__name__)

Json = Any
Send = Callable[[], Awaitable[Json]]

# What has been silent for longer no longer counts as running.
_RUNS_AT_MOST = timedelta(hours=24)
# How long a repeated call waits for the first to be answered, and how often it looks, in seconds.
_WAIT_FOR_FIRST = 10.0
_LOOK_EVERY = 0.1
# Added to the longest time that a call can take before it is given up for lost.
_LOST_AFTER = timedelta(seconds=30)
_JOB_ID_MOST = 200
_SETTLE_SECONDS = 2.0


class TooManyJobsError(Exception):
    """The user has as many running jobs as they may."""


class KeyReusedError(Exception):
    """The idempotency key was used for something else."""


class StillRunningError(Exception):
    """The first call with this idempotency key has not been answered yet."""


class OutcomeUnknownError(Exception):
    """Nobody knows what became of the first call with this idempotency key."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, for whom, and where."""

    user: User
    tool: ToolKind
    arguments: Mapping[str, Json]
    workspace: str
    key: str | None = None

    @property
    def digest(self) -> str:
        asked = [self.tool.name, self.workspace, self.arguments]
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Json
    job_id: str | None = None


class SubmissionService:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        announcer: JobAnnouncer,
        silent: SilentJobs,
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._silent = silent
        self._jobs_per_user = settings.JOBS_PER_USER
        self._lost_after = timedelta(seconds=settings.LITELLM_TIMEOUT_SECONDS) + _LOST_AFTER
        self._running: set[asyncio.Task[Outcome]] = set()

    async def submit(self, order: Order, send: Send) -> Outcome:
        """Send a call that writes, or give the outcome of the same call before.

        Goes on to its end when the caller is cancelled: what the tool has accepted has an owner.
        Raises UpstreamError, and the errors above.
        """
        task = asyncio.create_task(self._submit(order, send), name="submission")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Wait for what is under way, for a moment."""
        if self._running:
            await asyncio.wait(self._running, timeout=_SETTLE_SECONDS)

    async def _submit(self, order: Order, send: Send) -> Outcome:
        first = await self._begin(order)
        if isinstance(first, Outcome):
            return first
        try:
            result = await send()
            outcome = Outcome(result, _job_id(result) if order.tool.job_kind else None)
        except UpstreamError as error:
            await self._failed(first, maybe_done=error.maybe_done)
            raise
        await self._done(order, first, outcome)
        return outcome

    async def _begin(self, order: Order) -> UUID | Outcome:
        """Note the call, and give its id; or the outcome of the first call with the same key."""
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_FIRST
        while True:
            async with self._database.transaction() as session:
                await submissions.lock_user(session, order.user.id)
                first = order.key and await submissions.by_key(session, order.user.id, order.key)
                if first and first.created_at < _now() - _RUNS_AT_MOST:
                    await submissions.remove(session, first.id)
                    first = None
                if not first:
                    if order.tool.job_kind:
                        await self._check_limit(session, order.user.id)
                    return _note(session, order)
                if (outcome := self._outcome_of(first, order)) is not None:
                    return outcome
            if asyncio.get_running_loop().time() > deadline:
                raise StillRunningError
            await asyncio.sleep(_LOOK_EVERY)

    def _outcome_of(self, first: SubmissionRow, order: Order) -> Outcome | None:
        """That of the first call, None while it is under way."""
        if first.digest != order.digest:
            raise KeyReusedError
        if first.state == SubmissionState.DONE.value:
            return Outcome(first.result, first.job_id)
        lost = first.created_at < _now() - self._lost_after
        if lost or first.state == SubmissionState.UNKNOWN.value:
            raise OutcomeUnknownError
        return None

    async def _check_limit(self, session: AsyncSession, user_id: UUID) -> None:
        most, now = self._jobs_per_user, _now()
        sent = await submissions.count_sent(session, user_id, now - self._lost_after)
        jobs = await submissions.running_jobs(session, user_id, now - _RUNS_AT_MOST, 2 * most)
        running = sent + len(jobs)
        if running >= most:
            silent = [job.id for job in jobs if self._silent.is_silent_since(job.updated_at)]
            running -= len(await self._silent.gone(silent))
        if running >= most:
            raise TooManyJobsError

    async def _failed(self, submission_id: UUID, *, maybe_done: bool) -> None:
        try:
            async with self._database.transaction() as session:
                if not maybe_done:
                    await submissions.remove(session, submission_id)
                elif row := await session.get(SubmissionRow, submission_id):
                    row.state = SubmissionState.UNKNOWN.value
        except DATABASE_ERRORS:
            # It stays as sent, and is given up for lost in time.
            logger.warning("submission_not_closed", submission_id=str(submission_id))

    async def _done(self, order: Order, submission_id: UUID, outcome: Outcome) -> None:
        """Keep the outcome, and whose the job is: in PostgreSQL, or at least on the stream."""
        now = _now()
        announced = True
        if outcome.job_id is not None and order.tool.job_kind is not None:
            announced = await self._announcer.announce(
                Announcement(
                    submission_id,
                    outcome.job_id,
                    order.tool.job_kind,
                    order.user.id,
                    order.workspace,
                    now,
                )
            )
        try:
            async with self._database.transaction() as session:
                if outcome.job_id is not None:
                    await job_rows.merge(session, [_job(order, outcome.job_id, now)])
                if row := await session.get(SubmissionRow, submission_id):
                    row.state = SubmissionState.DONE.value
                    row.result = outcome.result
                    row.job_id = outcome.job_id
                    row.announced = announced
                    row.finished_at = now
        except DATABASE_ERRORS as error:
            logger.warning(
                "submission_not_kept",
                submission_id=str(submission_id),
                job_id=outcome.job_id,
                user=str(order.user.id),
                error=str(error),
            )
            if not announced:
                raise


def _note(session: AsyncSession, order: Order) -> UUID:
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


def _job(order: Order, job_id: str, now: datetime) -> JobChange:
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
    """Raises StrangeAnswerError where a tool that starts jobs names none."""
    job_id = result.get("job_id") if isinstance(result, dict) else None
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _JOB_ID_MOST:
        raise StrangeAnswerError("The tool names no job.")
    if not job_id.isprintable() or job_id != job_id.strip():
        raise StrangeAnswerError("The tool names a job that cannot be.")
    return job_id


def _now() -> datetime:
    return datetime.now(UTC)
