"""A job as the API shows it."""

from datetime import UTC, datetime

from src.models.job import Job, JobStatus
from tests.support.builders import JOB


def test_completed_job_has_100_percent() -> None:
    moment = datetime.now(UTC)
    job = Job(
        id=JOB,
        owner_id=None,
        workspace=None,
        kind=None,
        status=JobStatus.COMPLETED,
        percent=40.0,
        error=None,
        result={},
        created_at=moment,
        updated_at=moment,
        completed_at=moment,
    )
    assert job.percent == 100.0
