"""Defines which records a client of the stream gets."""

from dataclasses import dataclass
from typing import NamedTuple

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.models.visibility import Visibility
from src.services.auth.tokens import AccessToken
from src.services.event_service import JobState
from src.services.events.feed import FeedRecord


class JobScope(NamedTuple):
    """All jobs that a user may see, or one job, which the user sees completely or not at all."""

    visibility: Visibility
    job_id: str | None = None

    def shows(self, record: FeedRecord) -> bool:
        """Whether the record belongs to this scope."""
        if self.job_id is not None:
            return record.job_id == self.job_id
        return self.visibility.everything or self.sees(record.after)

    def sees(self, job: JobState | None) -> bool:
        """Whether the job is visible to the user, by its owner and workspace."""
        return job is not None and self.visibility.shows(job.owner, job.workspace)

    def needs_backfill(self, record: FeedRecord) -> bool:
        """Whether the job becomes visible to the client with this record."""
        if self.job_id is not None or self.visibility.everything or not record.changes_ownership:
            return False
        return self.sees(record.after) and not self.sees(record.before)

    def may_lack_run(self, record: FeedRecord) -> bool:
        """Whether clients of a feed may lack earlier events of the job of this record."""
        return self.job_id is None and record.rehydrated

    def needs_inspection(self, record: FeedRecord) -> bool:
        """Whether a client may need other frames before this record."""
        if self.job_id is not None:
            return record.before is None or record.changes_ownership
        return self.needs_backfill(record) or self.may_lack_run(record)

    def loses_access_to(self, job: JobState | None) -> bool:
        """Whether the client of one job may no longer see it, according to the stream.

        Fields that the stream does not contain were checked in PostgreSQL when the client
        connected.
        """
        if self.job_id is None or job is None or job.workspace is None:
            return False
        return not self.visibility.shows(job.owner or self.visibility.owner, job.workspace)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client requested, and with which access token.

    Attributes:
        scope: The jobs that the client may see.
        cursor: The last id that the client has; None to start from the current state.
        access: The access token. The stream ends when it expires.
        version: The protocol version of the client.
    """

    scope: JobScope
    cursor: StreamId | None
    access: AccessToken
    version: ProtocolVersion = CURRENT
