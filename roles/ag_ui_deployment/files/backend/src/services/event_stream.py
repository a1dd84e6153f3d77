"""One client's stream: what it missed, how things stand, then what comes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import Literal

import structlog
from ag_ui.core import CustomEvent

from src.models.event import ZERO, StreamId
from src.services.event_feed import FellBehindError, Record
from src.services.event_fold import StreamFold
from src.services.event_frames import comment, encode, retry
from src.services.event_history import EventHistory
from src.services.event_hub import Attachment, EventHub, Scope
from src.services.event_service import VENDOR, JobState, prelude, resumed_prelude
from src.utils.database import DATABASE_ERRORS
from src.utils.redis import REDIS_ERRORS

logger = structlog.get_logger(__name__)

_WRITE_RECORDS = 512
_SPREAD_MS = 3000

Reason = Literal[
    "client left",
    "run ended",
    "token expired",
    "too slow",
    "draining",
    "history unavailable",
]


class EventStreams:
    """Makes the streams of clients from the hub and the history."""

    def __init__(self, hub: EventHub, history: EventHistory, retry_ms: int) -> None:
        self.hub = hub
        self.history = history
        self.retry_ms = retry_ms
        self.count = 0

    async def open(
        self, scope: Scope, cursor: StreamId | None, expires_at: float
    ) -> AsyncIterator[bytes]:
        """The bytes of a stream, until its run, its token, its pace or the process ends it.

        `cursor` is the last id that the client has; `expires_at` is in seconds since 1970.
        """
        log = logger.bind(job_id=scope.job_id, cursor=cursor and str(cursor))
        log.info("stream_opened")
        self.count += 1
        reason: Reason = "client left"
        try:
            yield retry(self.retry_ms)
            async for chunk in _ClientStream(self, scope, expires_at).chunks(cursor):
                yield chunk
            reason = "draining" if self.hub.draining else "run ended"
            if self.hub.draining:
                # Spread out, so that a restart does not bring everybody back at once.
                yield retry(self.retry_ms + random.randrange(_SPREAD_MS))  # noqa: S311
        except _TokenExpiredError:
            reason = "token expired"
            yield comment("the token has expired")
        except FellBehindError:
            reason = "too slow"
            yield comment("too slow: reconnect with the last id")
        except (*REDIS_ERRORS, *DATABASE_ERRORS) as error:
            reason = "history unavailable"
            log.warning("stream_history_unavailable", error=str(error))
            yield comment("the history is unavailable: reconnect with the last id")
        finally:
            self.count -= 1
            log.info("stream_closed", reason=reason)


class _TokenExpiredError(Exception):
    """The token that opened the stream is no longer valid."""


@dataclass(frozen=True, slots=True)
class _Deadline:
    """`expires_at` is in seconds since 1970."""

    expires_at: float

    def check(self) -> None:
        if time.time() >= self.expires_at:
            raise _TokenExpiredError

    async def wait(self, condition: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self.expires_at - time.time()):
                await condition
        except TimeoutError:
            raise _TokenExpiredError from None


class _ClientStream:
    def __init__(self, streams: EventStreams, scope: Scope, expires_at: float) -> None:
        self._hub = streams.hub
        self._history = streams.history
        self._scope = scope
        self._deadline = _Deadline(expires_at)
        # Jobs whose run this client has been told of on this connection.
        self._introduced: set[str] = set()
        # Whether this is the stream of one job, and its terminal event has been sent.
        self._run_ended = False
        # What the client has to be told besides the events.
        self._notices: list[CustomEvent] = []

    async def chunks(self, cursor: StreamId | None) -> AsyncIterator[bytes]:
        await self._deadline.wait(self._hub.started.wait())
        if cursor is not None and not await self._reached(cursor):
            self._notices = [self._gap(cursor)]
            cursor = None
        if cursor is not None and cursor > self._hub.last_id:
            # Draining before it got there: another instance will know what follows.
            return
        attachment = self._hub.attach(self._scope, cursor)
        try:
            past = self._job_past if self._scope.job_id is not None else self._feed_past
            async for chunk in past(attachment, cursor):
                self._deadline.check()
                if chunk:
                    yield chunk
            if self._run_ended:
                return
            async for chunk in self._live(attachment):
                yield chunk
        finally:
            self._hub.detach(self._scope)

    async def _reached(self, cursor: StreamId) -> bool:
        """Wait until the hub is as far as the cursor, or draining.

        Another process may have given it, which reads the stream on its own.
        False if the stream never was that far: the cursor stems from one that is gone.
        """
        if cursor > self._hub.last_id and cursor > await self._history.newest():
            return False
        while cursor > self._hub.last_id and not self._hub.draining:
            await self._deadline.wait(self._hub.progress.wait())
        return True

    async def _feed_past(
        self, attachment: Attachment, cursor: StreamId | None
    ) -> AsyncIterator[bytes]:
        """Everything missed since the cursor, and the runs that are on."""
        if cursor is None:
            yield encode(self._notices)
            yield b"".join(encode(prelude(state)) for state in attachment.jobs)
            return
        if cursor < attachment.floor:
            async for records in self._replay(cursor, attachment.floor):
                yield self._frames(records)
        yield self._frames(attachment.recent)
        silent = (s for s in attachment.jobs if s.job_id not in self._introduced)
        yield b"".join(encode(resumed_prelude(state)) for state in silent)

    async def _replay(self, cursor: StreamId, floor: StreamId) -> AsyncIterator[list[Record]]:
        """Records with cursor < id <= floor, made again from the history.

        Where Redis holds the cursor, folding begins with all that it holds: what PostgreSQL has
        not got yet counts for the states too. Below that, PostgreSQL has all there is.
        """
        jobs = StreamFold(self._history.of_jobs)
        start = min(cursor, await self._history.retained_above())
        async for events in self._history.pages(start, floor.next()):
            if unknown := jobs.unknown_jobs(events):
                await jobs.recall(unknown, events[0].id)
            records = jobs.apply(events)
            yield [record for record in records if record.id > cursor and self._scope.shows(record)]

    async def _job_past(
        self, attachment: Attachment, cursor: StreamId | None
    ) -> AsyncIterator[bytes]:
        """One job's run so far, or what was missed of it; whole if it has ended."""
        state = attachment.jobs[0] if attachment.jobs else None
        recent, border = attachment.recent, attachment.floor
        if state is None:
            # The hub has forgotten the job: what the ring still has of it may not be all.
            recent, border = [], attachment.last_id
        if state is None or (cursor is not None and cursor < border):
            jobs = StreamFold(self._history.of_jobs)
            pages = self._history.pages(ZERO, border.next(), self._scope.job_id)
            async for events in pages:
                records = jobs.apply(events)
                if cursor is not None:
                    yield self._frames(record for record in records if record.id > cursor)
            state = state or jobs.state(self._scope.job_id or "")
        yield self._frames(recent)
        if state is not None and state.job_id not in self._introduced:
            yield self._standing(state, complete=cursor is None)

    def _standing(self, state: JobState, *, complete: bool) -> bytes:
        """How a job stands, for a client that got no record of it on this connection."""
        started, *rest = prelude(state) if complete else resumed_prelude(state)
        frames = encode([started, *self._notices, *rest])
        if state.terminal is None:
            return frames
        self._run_ended = True
        return frames + encode([state.terminal], state.terminal_id)

    async def _live(self, attachment: Attachment) -> AsyncIterator[bytes]:
        feed, position = attachment.feed, attachment.position
        while True:
            records = feed.read(position, _WRITE_RECORDS)
            if records:
                position += len(records)
                yield b"".join([record.frames for record in records])
                if self._scope.job_id is not None and records[-1].ends_run:
                    return
                self._deadline.check()
            elif feed.closed:
                return
            else:
                await self._deadline.wait(feed.wait(position))

    def _gap(self, cursor: StreamId) -> CustomEvent:
        """A notice that the stream which the cursor stems from is gone."""
        job_id = self._scope.job_id
        return CustomEvent(
            name=f"{VENDOR}.gap",
            value={"after": str(cursor)},
            metadata={"job_id": job_id} if job_id else None,
        )

    def _frames(self, records: Iterable[Record]) -> bytes:
        """The bytes of records, each job's first one introduced by how the job stood then."""
        parts: list[bytes] = []
        for record in records:
            parts += (self._introduction(record), record.frames)
            self._run_ended |= self._scope.job_id is not None and record.ends_run
        return b"".join(parts)

    def _introduction(self, record: Record) -> bytes:
        if record.job_id is None or record.job_id in self._introduced:
            return b""
        self._introduced.add(record.job_id)
        before = record.before
        if before is None:
            return b""
        was_theirs = self._scope.owner is None or before.owner == self._scope.owner
        return encode(resumed_prelude(before) if was_theirs else prelude(before))
