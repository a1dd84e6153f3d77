"""An audit log without a running backend, and operations on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from src.config import Settings
from src.models.audit import Head, Verification
from src.services import audit_logger
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.keys import AuditKeys
from src.services.audit.retention import AuditRetention
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.utils.database import Database
from tests.support.environment import Environment


def event(target: str = "user:1", **values: Any) -> AuditEvent:
    """Return a login event to record."""
    return AuditEvent(Action.LOGIN, actor="alice@shield.test", target=target, **values)


class Log:
    """One instance's view of the log, or an attacker's."""

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self.environment = environment
        self.settings = settings
        self.database = Database(settings)
        self.logger = AuditLogger(self.database)
        self.keys = AuditKeys(settings.audit_keys)
        self.signer = CheckpointSigner(self.database, self.keys, settings)
        verifier = AuditVerifier(self.database, self.keys)
        self.retention = AuditRetention(self.database, self.signer, verifier, self.logger, settings)

    @asynccontextmanager
    async def other(self) -> AsyncIterator["Log"]:
        """Open another instance of the same log."""
        one = Log(self.environment, self.settings)
        yield one
        await one.database.close()

    async def retain(self, *, even_if_broken: bool = False) -> int:
        """Apply the retention once as an operator; return the number of deleted entries."""
        return await self.retention.retain("operator", even_if_broken=even_if_broken)

    async def add(self, count: int) -> None:
        """Record this many entries with distinct targets."""
        for number in range(count):
            await self.logger.record(event(f"user:{number}", details={"n": number}))

    async def tamper(self, *statements: str) -> None:
        """Run statements as the owner of the database could, bypassing the triggers."""
        await self.environment.query("SET session_replication_role = replica")
        for statement in statements:
            await self.environment.query(statement)
        await self.environment.query("SET session_replication_role = DEFAULT")

    async def add_expired(self, count: int, days: int) -> None:
        """Append chained entries with an old timestamp."""
        old = datetime.now(UTC) - timedelta(days=days)
        entry = replace(audit_logger._entry(event()), at=old)
        await self.logger._store.append([entry] * count)

    async def verify(self) -> Verification:
        return await AuditVerifier(self.database, self.keys).verify()

    async def first_fault(
        self, *noted: Head, keys: AuditKeys | None = None
    ) -> tuple[int, str] | None:
        """Return where the log is broken, and why; None if it is intact."""
        verification = await AuditVerifier(self.database, keys or self.keys).verify(noted)
        assert verification.intact == (verification.broken is None)
        broken = verification.broken
        return (broken.seq, broken.reason) if broken else None

    async def seqs(self) -> list[int]:
        """Return the sequence numbers of all entries in order."""
        return [
            row[0] for row in await self.environment.query("SELECT seq FROM audit_log ORDER BY seq")
        ]

    async def checkpoints(self) -> list[tuple[int, int]]:
        """Return the numbers of the checkpoints, each with the sequence number of its entry."""
        rows = await self.environment.query(
            "SELECT number, seq FROM audit_checkpoints ORDER BY number"
        )
        return [tuple(row) for row in rows]
