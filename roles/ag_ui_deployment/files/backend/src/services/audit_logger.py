"""Records audit events: who did what, on what, from which address, and with what outcome."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import structlog

from src.models.audit import Entry
from src.services.audit.details import bounded_text, canonical_details
from src.services.audit.journal import write_entry
from src.services.audit.store import AuditStore
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database, is_bad_data
from src.utils.json_types import Json
from src.utils.metrics import Metrics
from src.utils.redis import Backoff

logger = structlog.get_logger(__name__)

_BATCH_ENTRIES = 256
# Limit of entries in memory while PostgreSQL is down, of some hundred bytes each.
_MAX_QUEUED = 10_000
# How long a request waits until its entry is stored. The entry stays queued after that.
_WAIT_SECONDS = 2.0


class Action(StrEnum):
    LOGIN = "login"
    LOCKOUT = "lockout"
    UNLOCK = "unlock"
    LOGOUT = "logout"
    TOKEN_REUSE = "token.reuse"  # noqa: S105 - no password
    PASSWORD_CHANGE = "password.change"  # noqa: S105 - no password
    PASSWORD_RESET = "password.reset"  # noqa: S105 - no password
    REGISTER = "user.register"
    EMAIL_VERIFY = "user.verify_email"
    MFA_CHANGE = "mfa.change"
    USER_INVITE = "user.invite"
    INVITATION_WITHDRAW = "invitation.withdraw"
    USER_CREATE = "user.create"
    USER_DEACTIVATE = "user.deactivate"
    USER_ACTIVATE = "user.activate"
    USER_RENAME = "user.rename"
    ROLE_CHANGE = "role.change"
    WORKSPACE_CREATE = "workspace.create"
    WORKSPACE_DELETE = "workspace.delete"
    MEMBERSHIP_CHANGE = "membership.change"
    TOOL_CALL = "tool.call"
    AGENT_RUN = "agent.run"
    AGENT_CANCEL = "agent.cancel"
    AGENT_RETAIN = "agent.retain"
    THREAD_DELETE = "thread.delete"
    UPLOAD_COMPLETE = "upload.complete"
    UPLOAD_DELETE = "upload.delete"
    ACCESS_DENIED = "access.denied"
    AUDIT_EXPORT = "audit.export"
    AUDIT_VERIFY = "audit.verify"
    AUDIT_RETAIN = "audit.retain"
    DEAD_LETTER_REPLAY = "dead_letter.replay"
    DEAD_LETTER_DISCARD = "dead_letter.discard"
    SETTINGS_CHANGE = "settings.change"


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An action or an attempt of one.

    The request id and the client address are added from the context of the request.

    Attributes:
        action: What was done.
        outcome: Whether it succeeded.
        actor_id: The id of the acting account.
        actor: Its email address, or a word such as "operator".
        target: The affected object as `kind:id`.
        details: Small plain values, never secrets or contents.
    """

    action: Action
    outcome: Outcome = Outcome.SUCCESS
    actor_id: UUID | None = None
    actor: str | None = None
    target: str | None = None
    details: Mapping[str, Json] = field(default_factory=dict)


class _QueuedEntry(NamedTuple):
    entry: Entry
    stored: asyncio.Future[None]


class AuditLogger(BackgroundTask):
    """Writes entries to the journal immediately, and to the database in batches.

    Between start() and stop() a task stores the queued entries. Entries recorded during a commit form
    the next batch. While PostgreSQL is down a bounded number of entries waits in memory. Without
    start(), as in commands, each entry is stored by itself.
    """

    def __init__(self, database: Database, metrics: Metrics | None = None) -> None:
        super().__init__("audit-writer")
        self._store = AuditStore(database)
        self._metrics = metrics or Metrics()
        self._queue: deque[_QueuedEntry] = deque()
        self._wake = asyncio.Event()
        self._batch_size = _BATCH_ENTRIES
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """The number of entries that are not stored yet."""
        return len(self._queue)

    async def record(self, event: AuditEvent) -> None:
        """Record an event.

        Returns when the entry is stored, at the latest after two seconds, or immediately during an
        outage of PostgreSQL.

        Raises:
            DATABASE_ERRORS: Storing failed; only without start().
        """
        entry = _entry(event)
        write_entry(entry)
        if self._task is None:
            await self._store.append([entry])
        elif self._task.done() or len(self._queue) >= _MAX_QUEUED:
            self._drop("the queue is full")
        else:
            await self._enqueue(entry)

    async def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        await super().stop()

    async def _enqueue(self, entry: Entry) -> None:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_QueuedEntry(entry, stored))
        self._metrics.audit_waiting.set(len(self._queue))
        self._wake.set()
        if self.status != "waiting for PostgreSQL":
            await asyncio.wait([stored], timeout=_WAIT_SECONDS)

    async def _run(self) -> None:
        self.status = "ready"
        backoff = Backoff()
        while not (self._stop.is_set() and not self._queue):
            try:
                await self._store_some()
            except DATABASE_ERRORS as error:
                if is_bad_data(error):
                    self._drop_invalid(error)
                    continue
                self._suspend(error)
                if self._stop.is_set():
                    logger.warning("audit_entries_not_stored", entries=len(self._queue))
                    return
                await backoff.wait(self._stop)
            else:
                self.status = "ready"
                backoff.reset()

    async def _store_some(self) -> None:
        if not self._queue:
            await self._wake.wait()
        self._wake.clear()
        batch = list(islice(self._queue, self._batch_size))
        if not batch:
            return
        stored = await self._store.append([queued.entry for queued in batch])
        self._batch_size = _BATCH_ENTRIES
        self._metrics.audit_stored.inc(stored)
        self._release(batch[:stored])
        for _ in range(stored):
            self._queue.popleft()
        self._metrics.audit_waiting.set(len(self._queue))

    def _suspend(self, error: BaseException) -> None:
        """Note an outage of PostgreSQL and let the waiting requests continue."""
        if self.waits_for("PostgreSQL", error):
            logger.warning("audit_waits_for_database", error=str(error))
            self._release(self._queue)

    def _drop_invalid(self, error: BaseException) -> None:
        """Drop an entry with a value that PostgreSQL rejects, which is a bug.

        To find it, the batch is first repeated with one entry at a time.
        """
        if self._batch_size > 1:
            self._batch_size = 1
            return
        self._release([self._queue.popleft()])
        self._drop(f"it cannot be stored: {type(error).__name__}")

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        self._metrics.audit_dropped.inc()
        logger.error("audit_entry_dropped", reason=reason)

    def _release(self, batch: Sequence[_QueuedEntry] | deque[_QueuedEntry]) -> None:
        for queued in batch:
            if not queued.stored.done():
                queued.stored.set_result(None)


def _entry(event: AuditEvent) -> Entry:
    context = structlog.contextvars.get_contextvars()
    return Entry(
        at=datetime.now(UTC),
        action=event.action.value,
        outcome=event.outcome.value,
        actor_id=event.actor_id,
        actor=_text(event.actor),
        target=_text(event.target),
        address=_text(context.get("client")),
        request_id=_text(context.get("request_id")),
        details=canonical_details(event.details),
    )


def _text(value: str | None) -> str | None:
    return None if value is None else bounded_text(value)
