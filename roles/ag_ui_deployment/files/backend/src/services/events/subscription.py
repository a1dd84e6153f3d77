"""What a client of the stream is shown."""

from typing import NamedTuple

from src.models.visibility import Visibility
from src.services.event_service import JobState
from src.services.events.feed import FeedRecord


class Scope(NamedTuple):
    """All jobs that a user sees, or one job, of which they see all or nothing."""

    visibility: Visibility
    job_id: str | None = None

    def shows(self, record: FeedRecord) -> bool:
        if self.job_id is not None:
            return record.job_id == self.job_id
        return self.visibility.everything or self.sees(record.after)

    def sees(self, job: JobState | None) -> bool:
        return job is not None and self.visibility.shows(job.owner, job.workspace)

    def needs_backfill(self, record: FeedRecord) -> bool:
        """Whether a client is shown the record's job with this record, and was not before it."""
        if self.job_id is not None or self.visibility.everything or not record.changes_ownership:
            return False
        return self.sees(record.after) and not self.sees(record.before)

    def lacks_run_of(self, record: FeedRecord) -> bool:
        """Whether clients of the feed may know nothing of a job that was on before the record."""
        return self.job_id is None and record.recalled

    def looks_at(self, record: FeedRecord) -> bool:
        """Whether a client may have to be told something before this record."""
        if self.job_id is not None:
            return record.before is None or record.changes_ownership
        return self.needs_backfill(record) or self.lacks_run_of(record)

    def loses(self, job: JobState | None) -> bool:
        """Whether the client of one job may know of it no longer, as the stream tells it now.

        What the stream has not named, PostgreSQL had when the client was let in.
        """
        if self.job_id is None or job is None or job.workspace is None:
            return False
        return not self.visibility.shows(job.owner or self.visibility.owner, job.workspace)
