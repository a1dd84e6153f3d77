"""Checkpoints and retention: what is signed, what is deleted, and which changes are detected."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from src.models.audit import ChainLink, CheckpointPurpose
from src.repositories import audit as audit_rows
from src.services.audit import checkpoint_signer
from src.services.audit import retention as audit_retention
from src.services.audit import verifier as audit_verifier
from src.services.audit.keys import Checkpoint
from src.services.audit.retention import ChainBrokenError
from tests.support.audit_log import Log
from tests.support.cli import cli_environment, run
from tests.support.waiting import until


class TestCheckpoints:
    """Starts with entries 1 to 4; the signer knows checkpoint 1 at 2 and checkpoint 2 at 4."""

    @pytest.fixture
    async def log(self, log: Log) -> Log:
        for _ in range(2):
            await log.add(2)
            await log.signer.checkpoint_if_due()
        assert await log.checkpoints() == [(1, 2), (2, 4)]
        return log

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("DELETE FROM audit_checkpoints", "the first is number 4"),
            ("DELETE FROM audit_checkpoints WHERE number = 2", "number 1 is followed by 4"),
        ],
    )
    async def test_deleted_checkpoints_are_detected_and_leave_a_gap(
        self, log: Log, statement: str, reason: str
    ) -> None:
        await log.tamper(statement)
        with capture_logs() as logged:
            await log.signer.checkpoint_if_due()
        (error,) = [one for one in logged if one["log_level"] == "error"]
        assert (error["event"], error["known_to"]) == ("audit_checkpoints_cut", 2)
        assert (await log.checkpoints())[-1] == (4, 4)
        assert await log.first_fault() == (4, f"checkpoints are missing: {reason}")
        with capture_logs() as logged:
            await log.signer.checkpoint_if_due()
        assert logged == []

    async def test_rewritten_log_without_checkpoints_is_detected(self, log: Log) -> None:
        await log.tamper("DELETE FROM audit_checkpoints", "DELETE FROM audit_log")
        async with log.other() as intruder:
            await intruder.add(6)
        await log.signer.checkpoint_if_due()
        assert await log.first_fault() == (6, "checkpoints are missing: the first is number 4")

    async def test_numbers_continue_after_the_log_was_emptied(self, log: Log) -> None:
        await log.tamper("DELETE FROM audit_checkpoints WHERE number = 2", "DELETE FROM audit_log")
        await log.signer.checkpoint_if_due()
        async with log.other() as intruder:
            await intruder.add(5)
        await log.signer.checkpoint_if_due()
        assert (await log.checkpoints())[-1] == (4, 5)

    async def test_replaced_checkpoint_is_detected(self, log: Log) -> None:
        """As if an instance that did not know the checkpoint had signed the number again."""
        await log.tamper("DELETE FROM audit_checkpoints WHERE number = 2")
        async with log.other() as other:
            await other.add(1)
            await other.signer.checkpoint_if_due()
        assert await log.checkpoints() == [(1, 2), (2, 5)]
        assert await log.first_fault() is None
        await log.signer.checkpoint_if_due()
        assert await log.first_fault() == (5, "checkpoints are missing: number 2 is followed by 4")

    async def test_checkpoints_deleted_by_retention_are_not_missed(self, log: Log) -> None:
        await log.tamper("DELETE FROM audit_checkpoints WHERE number = 2")
        async with log.other() as other:
            await other.add(1)
            head = (await audit_rows_of(other))[-1].head
            async with other.database.transaction() as session:
                statement = Checkpoint(3, CheckpointPurpose.RETENTION, head, datetime.now(UTC))
                session.add(other.keys.sign(statement))
        await log.tamper("DELETE FROM audit_checkpoints WHERE number < 3")
        with capture_logs() as logged:
            await log.signer.checkpoint_if_due()
        assert logged == []

    async def test_forged_checkpoint_is_skipped(self, log: Log) -> None:
        """Its number is skipped; its time and its number of entries are ignored."""
        forged = (
            "INSERT INTO audit_checkpoints SELECT {}, purpose, {}, hash, {}, key_id, signature "
        )
        forged += "FROM audit_checkpoints WHERE number = 2"
        await log.environment.query(forged.format(3, 2**40, "'9000-01-01'"))
        await log.environment.query(forged.format(2**63 - 1, 4, "'infinity'"))
        await log.add(1)
        await log.signer.checkpoint_if_due()
        assert (4, 5) in await log.checkpoints()
        assert await log.first_fault() == (4, "its checkpoint has a forged signature")

    async def test_numbers_continue_after_key_rotation(self, log: Log) -> None:
        """Also if retention has deleted the first ones."""
        await log.tamper("DELETE FROM audit_checkpoints WHERE number = 1")
        settings = log.environment.settings(AUDIT_KEY="n" * 32, JWT_SECRET="j" * 32)
        new = Log(log.environment, settings)
        await new.signer.checkpoint_if_due()
        assert await log.checkpoints() == [(2, 4), (3, 4)]
        await new.database.close()

    async def test_nothing_is_signed_while_another_instance_holds_the_lock(self, log: Log) -> None:
        await log.add(1)
        async with log.other() as other, other.database.transaction() as session:
            assert await audit_rows.try_lock_checkpoints(session)
            await log.signer.checkpoint_if_due()
            assert len(await log.checkpoints()) == 2
        await log.signer.checkpoint_if_due()
        assert len(await log.checkpoints()) == 3

    async def test_concurrent_signers_create_one_checkpoint(self, log: Log) -> None:
        await log.add(1)
        async with log.other() as one, log.other() as two, log.other() as three:
            signers = [each.signer for each in (log, one, two, three)]
            await asyncio.gather(*(signer.checkpoint_if_due() for signer in signers))
        assert await log.checkpoints() == [(1, 2), (2, 4), (3, 5)]

    async def test_concurrent_signers_leave_no_gaps(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_signer, "_POLL_SECONDS", 0.001)
        async with log.other() as one, log.other() as two:
            signers = [each.signer for each in (log, one, two)]
            for signer in signers:
                signer.start()
            await log.add(30)

            async def all_is_signed() -> bool:
                return (await log.checkpoints())[-1][1] == 34

            await until(all_is_signed)
            for signer in signers:
                await signer.stop()
        numbers = [number for number, _ in await log.checkpoints()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert await log.first_fault() is None

    async def test_errors_are_logged_and_retried(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint_signer, "_POLL_SECONDS", 0.001)
        calls = 0

        async def overflowing() -> None:
            nonlocal calls
            calls += 1
            raise OverflowError

        monkeypatch.setattr(log.signer, "checkpoint_if_due", overflowing)
        with capture_logs() as logged:
            log.signer.start()
            await until(lambda: calls >= 3)
            assert not log.signer.failed
            assert "audit_keeper_failed" in log.signer.status
            await log.signer.stop()
        assert {one["event"] for one in logged} == {"audit_keeper_failed"}


async def audit_rows_of(log: Log) -> list[ChainLink]:
    async with log.database.transaction() as session:
        return await audit_rows.after(session, None, 1000)


@asynccontextmanager
async def held(log: Log, number: int) -> AsyncIterator[None]:
    """Hold an advisory lock in another instance for the duration of the block."""
    async with log.other() as other, other.database.alone(number) as is_held:
        assert is_held
        yield


class TestRetention:
    async def test_remaining_entries_follow_a_signed_checkpoint(self, log: Log) -> None:
        await log.add_expired(5, days=100)
        await log.add(3)
        await log.signer.checkpoint_if_due()
        assert await log.retain() == 5
        assert await log.seqs() == [6, 7, 8, 9]
        assert await log.first_fault() is None
        ((details,),) = await log.environment.query("SELECT details FROM audit_log WHERE seq = 9")
        assert orjson.loads(details) == {"entries": 5, "through": 5, "even_if_broken": False}
        assert await log.retain() == 0
        await log.tamper("DELETE FROM audit_log WHERE seq = 6")
        assert await log.first_fault() == (6, "it is missing")

    async def test_interrupted_deletion_is_resumed(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.add_expired(5, days=100)
        await log.add(1)
        monkeypatch.setattr(audit_retention, "_DELETE_ENTRIES", 2)
        delete = log.retention._delete_some
        calls = 0

        async def once(session: AsyncSession, through: int) -> int:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ConnectionResetError
            return await delete(session, through)

        monkeypatch.setattr(log.retention, "_delete_some", once)
        with pytest.raises(ConnectionResetError):
            await log.retain()
        assert await log.seqs() == [3, 4, 5, 6]
        assert await log.first_fault() is None
        assert await log.retain() == 3
        assert await log.first_fault() is None

    async def test_newest_entry_is_kept(self, log: Log) -> None:
        await log.add_expired(3, days=100)
        assert await log.retain() == 2
        assert (await log.seqs())[0] == 3
        assert await log.first_fault() is None
        await log.tamper("DELETE FROM audit_log")
        found = await log.first_fault()
        assert found is not None
        assert found[0] == 3

    async def test_broken_chain_is_not_deleted(self, log: Log) -> None:
        await log.add_expired(5, days=100)
        await log.add(1)
        await log.tamper("UPDATE audit_log SET actor = 'x' WHERE seq = 2")
        with pytest.raises(ChainBrokenError, match="entry 2"):
            await log.retain()
        assert len(await log.seqs()) == 6
        code, out, error = await run(cli_environment(log.environment), "audit", "retain")
        assert (code, out) == (5, "")
        assert "entry 2" in error
        assert await log.retain(even_if_broken=True) == 5
        assert await log.first_fault() is None

    async def test_old_checkpoints_are_deleted_with_their_entries(self, log: Log) -> None:
        await log.add_expired(3, days=100)
        async with log.database.transaction() as session:
            head = await audit_rows.head(session)
            assert head is not None
            second = (await audit_rows.after(session, 1, 1))[0].head
            then = datetime.now(UTC) - timedelta(days=100)
            session.add(log.keys.sign(Checkpoint(1, CheckpointPurpose.INTERVAL, second, then)))
            session.add(log.keys.sign(Checkpoint(2, CheckpointPurpose.INTERVAL, head, then)))
        await log.add(2)
        await log.retain()
        rows = await log.environment.query(
            "SELECT purpose, seq FROM audit_checkpoints ORDER BY number"
        )
        assert [tuple(row) for row in rows] == [("interval", 3), ("retention", 3)]
        assert await log.first_fault() is None

    async def test_damage_after_the_expired_entries_does_not_matter(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Retention does not even read the later entries."""
        monkeypatch.setattr(audit_verifier, "_PAGE", 1)
        await log.add_expired(5, days=100)
        await log.add(3)
        await log.signer.checkpoint_if_due()
        await log.tamper(
            "UPDATE audit_log SET actor = 'x' WHERE seq = 7",
            "UPDATE audit_checkpoints SET signature = hash WHERE seq = 8",
        )
        with patch.object(audit_rows, "after", side_effect=audit_rows.after) as reading:
            assert await log.retain() == 5
        assert reading.call_count == 5
        assert await log.seqs() == [6, 7, 8, 9]
        assert (await log.first_fault() or [None])[0] == 7

    async def test_deleted_own_entries_cause_no_alarm(self, log: Log) -> None:
        async with log.other() as quiet:
            await quiet.add_expired(4, days=100)
            await log.add(2)
            assert await log.retain() == 4
            with capture_logs() as logged:
                await quiet.add(1)
        assert [one["event"] for one in logged] == ["audit"]
        assert await log.first_fault() is None

    async def test_one_run_at_a_time(self, log: Log) -> None:
        await log.add_expired(5, days=100)
        await log.add(1)
        async with held(log, audit_rows.RETENTION_LOCK):
            await log.retention.retain_if_alone()
            assert len(await log.seqs()) == 6
            by_hand = asyncio.create_task(run(cli_environment(log.environment), "audit", "retain"))
            await until(log.environment.lock_is_awaited, 30)
            assert len(await log.seqs()) == 6
        code, out, _ = await by_hand
        assert (code, out) == (0, "audit: 5 entries deleted\n")
        assert await log.first_fault() is None

    async def test_command_waits_for_the_lock_of_the_signer(self, log: Log) -> None:
        await log.add_expired(5, days=100)
        await log.add(1)
        async with log.other() as other, other.database.transaction() as session:
            await session.execute(select(func.pg_advisory_xact_lock(audit_rows.CHECKPOINT_LOCK)))
            by_hand = asyncio.create_task(log.retain())
            await until(log.environment.lock_is_awaited)
        assert await by_hand == 5

    @pytest.mark.parametrize("forced", [False, True])
    async def test_actor_and_force_are_recorded(self, log: Log, *, forced: bool) -> None:
        await log.add_expired(2, days=100)
        await log.add(1)
        options = ["--even-if-broken"] if forced else []
        await run(cli_environment(log.environment), "audit", "retain", *options)
        ((actor, details),) = await log.environment.query(
            "SELECT actor, details FROM audit_log WHERE action = 'audit.retain'"
        )
        assert actor == "operator"
        assert orjson.loads(details)["even_if_broken"] is forced


class Gate:
    """Blocks a call until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def pass_(self) -> None:
        self.reached.set()
        await self.opened.wait()


class TestRetentionTask:
    @pytest.fixture
    async def log(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> Log:
        """Five expired entries, each checked and deleted separately."""
        monkeypatch.setattr(audit_retention.AuditRetention, "first_seconds", 0)
        monkeypatch.setattr(audit_verifier, "_PAGE", 1)
        monkeypatch.setattr(audit_retention, "_DELETE_ENTRIES", 1)
        await log.add_expired(5, days=100)
        await log.add(1)
        return log

    async def test_signing_continues_during_verification(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate()
        after = audit_rows.after

        async def slowly(*values: Any) -> Sequence[ChainLink]:
            await gate.pass_()
            return await after(*values)

        monkeypatch.setattr(audit_rows, "after", slowly)
        log.retention.start()
        await gate.reached.wait()
        await log.signer.checkpoint_if_due()
        assert await log.checkpoints() == [(1, 6)]
        stopping = asyncio.create_task(log.retention.stop())
        await until(log.retention._stop.is_set)
        gate.opened.set()
        await stopping
        assert await log.seqs() == [1, 2, 3, 4, 5, 6]
        assert await log.checkpoints() == [(1, 6)]

    async def test_stop_during_deletion_leaves_an_intact_log(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate()
        delete = audit_rows.delete_through

        async def slowly(*values: Any) -> int:
            deleted = await delete(*values)
            await gate.pass_()
            return deleted

        monkeypatch.setattr(audit_rows, "delete_through", slowly)
        log.retention.start()
        await gate.reached.wait()
        stopping = asyncio.create_task(log.retention.stop())
        await until(log.retention._stop.is_set)
        gate.opened.set()
        await stopping
        assert await log.seqs() == [2, 3, 4, 5, 6, 7]
        assert await log.first_fault() is None
        ((details,),) = await log.environment.query("SELECT details FROM audit_log WHERE seq = 7")
        assert orjson.loads(details)["entries"] == 1
        async with log.other() as other:
            assert await other.retain() == 4
        assert await log.first_fault() is None

    async def test_refusals_and_errors_are_logged_and_retried(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_retention.AuditRetention, "every_seconds", 0)
        await log.tamper("UPDATE audit_log SET actor = 'x' WHERE seq = 2")
        verify = audit_verifier.AuditVerifier.verify
        errors: list[Exception] = [OverflowError(), ConnectionResetError()]

        async def failing(*values: Any, **named: Any) -> Any:
            if errors:
                raise errors.pop()
            return await verify(*values, **named)

        monkeypatch.setattr(audit_verifier.AuditVerifier, "verify", failing)
        expected = ["audit_retention_put_off", "audit_retention_failed", "audit_retention_refused"]
        with capture_logs() as logged:
            log.retention.start()
            await until(lambda: len(logged) >= len(expected))
            await log.retention.stop()
        assert [one["event"] for one in logged][: len(expected)] == expected
        assert len(await log.seqs()) == 6
