"""Publishes to the stream who owns a job that a tool has accepted, and what it is about.

The events of producers name no user. The backend therefore publishes an event of its own, from
which every instance, the database and every open stream get the owner. If Redis is unavailable at
that moment, the row in `submissions` waits, and any instance publishes it later.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog
from redis.asyncio import Redis

from src.models.event import SUBMISSION
from src.models.submission import SubmissionRow
from src.repositories import submissions
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

RETENTION = timedelta(hours=24)
_POLL_SECONDS = 2.0
_BATCH_SIZE = 100
# How long publishing may delay a response, in seconds.
_TIMEOUT_SECONDS = 0.5
_PURGE_EVERY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Announcement:
    """The owner of a job. Every attempt publishes the same event id, so that it counts once.

    `subject` is None where the announcement is made from a row: the job is stored with it by then.
    """

    submission_id: UUID
    job_id: str
    kind: str
    user_id: UUID
    workspace: str
    accepted_at: datetime
    subject: str | None = None

    def fields(self) -> Mapping[str, bytes]:
        """Returns the fields of the stream entry."""
        data = {"job_type": self.kind}
        if self.subject is not None:
            data["subject"] = self.subject
        metadata = {"user_id": str(self.user_id), "workspace": self.workspace, "source": "ag-ui"}
        return {
            "event_id": f"submission:{self.submission_id}".encode(),
            "type": SUBMISSION.encode(),
            "timestamp": self.accepted_at.isoformat(timespec="milliseconds").encode(),
            "job_id": self.job_id.encode(),
            "data": orjson.dumps(data),
            "metadata": orjson.dumps(metadata),
        }


class JobAnnouncer(BackgroundTask):
    """Publishes submissions at once, and retries those that failed.

    `kinds` has the kind of job for each tool.
    """

    def __init__(
        self, redis: Redis, database: Database, stream: str, kinds: Mapping[str, str]
    ) -> None:
        super().__init__("job-announcer")
        self._redis = redis
        self._database = database
        self._stream = stream
        self._kinds = kinds
        self._purged_at = datetime.min.replace(tzinfo=UTC)

    async def announce(self, announcement: Announcement) -> bool:
        """Publishes at once; returns whether it succeeded."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._publish(announcement)
        except REDIS_ERRORS as error:
            logger.warning("job_not_announced", job_id=announcement.job_id, error=str(error))
            return False
        return True

    async def _publish(self, announcement: Announcement) -> None:
        fields: dict[Any, Any] = dict(announcement.fields())
        await self._redis.xadd(self._stream, fields)

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._announce_waiting()
                await self._purge()
                self.status = "announcing"
            except DATABASE_ERRORS as error:
                self._log_waiting("PostgreSQL", error)
            except REDIS_ERRORS as error:
                self._log_waiting("Redis", error)
            await self._pause(_POLL_SECONDS)

    def _log_waiting(self, dependency: str, error: BaseException) -> None:
        if self.waits_for(dependency, error):
            logger.warning("job_announcer_waits", dependency=dependency, error=str(error))

    async def _announce_waiting(self) -> None:
        async with self._database.transaction() as session:
            rows = await submissions.take_unannounced(session, _BATCH_SIZE)
            for row in rows:
                await self._publish(self._announcement(row))
            await submissions.set_announced(session, [row.id for row in rows])

    def _announcement(self, row: SubmissionRow) -> Announcement:
        return Announcement(
            row.id,
            str(row.job_id),
            self._kinds.get(row.tool, row.tool),
            row.user_id,
            row.workspace,
            row.finished_at or row.created_at,
        )

    async def _purge(self) -> None:
        now = datetime.now(UTC)
        if now - self._purged_at < _PURGE_EVERY:
            return
        async with self._database.transaction() as session:
            await submissions.remove_older(session, now - RETENTION)
        self._purged_at = now
