"""Summarizes the state of all instances and of the stream."""

from src.models.operations import OperationsReport, StreamGap
from src.repositories import events as event_rows
from src.services.consumer.errors import StreamUnavailableError
from src.services.consumer.stream_status import StreamStatusService
from src.services.operations.instance_reporter import InstanceReporter
from src.utils.database import Database
from src.utils.redis import REDIS_ERRORS

_GAPS_MAX = 20


class OperationsReporter:
    def __init__(
        self, database: Database, instances: InstanceReporter, stream: StreamStatusService
    ) -> None:
        self._database = database
        self._instances = instances
        self._stream = stream

    async def report(self) -> OperationsReport:
        """Returns the state of all instances, of the stream, and the latest gaps.

        Raises:
            StreamUnavailableError: Redis is unavailable.
        """
        stream = await self._stream.report()
        try:
            instances = await self._instances.all()
        except REDIS_ERRORS as error:
            raise StreamUnavailableError from error
        async with self._database.transaction() as session:
            gaps = await event_rows.latest_gaps(session, _GAPS_MAX)
        return OperationsReport(
            instances=instances,
            stream=stream,
            gaps=[
                StreamGap(
                    after=f"{gap.after_ms}-{gap.after_seq}",
                    before=f"{gap.before_ms}-{gap.before_seq}",
                    reason=gap.reason,
                    entries=gap.entries,
                    noticed_at=gap.noticed_at,
                )
                for gap in gaps
            ],
        )
