"""The audit log: complete with concurrent writers, protected from changes, and tamper-evident."""

import asyncio
import csv
import io
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from src.models.audit import Head
from src.models.permissions import Role
from src.models.user import User
from src.repositories import audit as audit_rows
from src.repositories.audit import AuditFilter
from src.services import audit_logger
from src.services.audit import store as audit_store
from src.services.audit.keys import AuditKeys
from src.services.audit.log_service import AuditLogService
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.utils.database import Database
from tests.support.accounts import bearer
from tests.support.audit_log import Log, event
from tests.support.builders import OWNER, settings_of, text_too_large_for_an_index
from tests.support.cli import BACKEND, cli_environment, run
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.waiting import until


class TestChain:
    async def test_empty_log_is_intact(self, log: Log) -> None:
        assert await log.first_fault() is None

    async def test_several_instances_write_one_chain(
        self, environment: Environment, log: Log
    ) -> None:
        databases = [Database(environment.settings()) for _ in range(3)]
        writers = [AuditLogger(database) for database in databases]
        for writer in writers:
            writer.start()
        await asyncio.gather(
            *(writer.record(event(f"user:{number}")) for number in range(200) for writer in writers)
        )
        assert await log.seqs() == list(range(1, 601))
        assert await log.first_fault() is None
        assert {writer.waiting for writer in writers} == {0}
        for writer, database in zip(writers, databases, strict=True):
            await writer.stop()
            await database.close()

    async def test_records_of_commands_are_serialised(self, log: Log) -> None:
        await asyncio.gather(*(log.logger.record(event()) for _ in range(5)))
        assert await log.seqs() == [1, 2, 3, 4, 5]
        assert await log.first_fault() is None

    async def test_lost_commit_response_causes_no_duplicate(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection breaks after the commit: the writer has to look up the outcome."""
        log.logger.start()
        transaction = log.database.transaction
        losing = True

        @asynccontextmanager
        async def lossy() -> AsyncIterator[Any]:
            nonlocal losing
            async with transaction() as session:
                yield session
            if losing:
                losing = False
                raise ConnectionResetError

        monkeypatch.setattr(log.database, "transaction", lossy)
        await log.logger.record(event("user:1"))
        await log.logger.record(event("user:2"))
        await log.logger.stop()
        assert await log.seqs() == [1, 2]
        assert await log.first_fault() is None

    @pytest.mark.parametrize("days", [365, -365])
    async def test_timestamps_come_from_the_database(
        self, log: Log, monkeypatch: pytest.MonkeyPatch, days: int
    ) -> None:
        class WrongClock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + timedelta(days=days)

        for module in (audit_logger, audit_store):
            monkeypatch.setattr(module, "datetime", WrongClock)
        await log.add(2)
        ((count,),) = await log.environment.query(
            "SELECT count(*) FROM audit_log WHERE at BETWEEN now() - interval '1 minute' AND now()"
        )
        assert count == 2
        assert await log.first_fault() is None

    async def test_unstorable_entry_is_dropped_alone(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_logger, "_text", lambda value: value)
        log.logger.start()
        targets = ("1", "\0", text_too_large_for_an_index(), "3")
        await asyncio.gather(*(log.logger.record(event(f"a{one}")) for one in targets))
        await log.logger.stop()
        assert log.logger.dropped == 2
        assert await log.first_fault() is None
        stored = [row[0] for row in await log.environment.query("SELECT target FROM audit_log")]
        assert sorted(stored) == ["a1", "a3"]

    async def test_long_request_paths_are_recorded(
        self, environment: Environment, log: Log
    ) -> None:
        """Escaping makes the text longer."""
        async with running(environment.settings()) as backend:
            token = backend.token_of(await backend.add_user("viewer@shield.test"))
            chance = Random(7)
            odd = quote("".join(chr(chance.randrange(0x4_0000, 0xE_0000)) for _ in range(480)))
            path = f"/admin/stream/dead-letters/{odd}/replay"
            assert (await backend.http.post(path, headers=bearer(token))).status_code == 403
            ((target,),) = await environment.query(
                "SELECT target FROM audit_log WHERE action = 'access.denied'"
            )
            assert target.startswith("POST /admin/stream/dead-letters/")
            assert backend.services.audit.logger.waiting == 0
        assert await log.first_fault() is None


def copy_statement(seq: int, original: int) -> str:
    """Return a statement that inserts a copy of an entry under another number."""
    others = ", ".join(name for name in COLUMNS if name != "seq")
    return (
        f"INSERT INTO audit_log (seq, {others}) "  # noqa: S608 - nothing of it comes from outside
        f"SELECT {seq}, {others} FROM audit_log WHERE seq = {original}"
    )


COLUMNS = {
    "seq": "1000",
    "at": "at + interval '1 microsecond'",
    "action": "'logout'",
    "outcome": "'failure'",
    "actor_id": f"'{OWNER}'",
    "actor": "'mallory@shield.test'",
    "target": "NULL",
    "address": "'10.0.0.1'",
    "request_id": "'r-2'",
    "details": "'{\"n\": 2}'",
    "prev_hash": r"'\x00'",
    "hash": r"'\x00'",
}


FORGED = (
    "INSERT INTO audit_checkpoints SELECT 3, 'retention', 4, hash, at, key_id, signature "
    "FROM audit_checkpoints WHERE seq = 4"
)


class TestTampering:
    """Entries 1 to 6, with checkpoints at 4 and 6."""

    @pytest.fixture
    async def log(self, log: Log) -> Log:
        await log.add(4)
        await log.signer.checkpoint_if_due()
        await log.add(2)
        await log.signer.checkpoint_if_due()
        assert await log.first_fault() is None
        return log

    @pytest.mark.parametrize("column", COLUMNS)
    async def test_changed_column_is_detected(self, log: Log, column: str) -> None:
        await log.tamper(f"UPDATE audit_log SET {column} = {COLUMNS[column]} WHERE seq = 3")  # noqa: S608
        found = await log.first_fault()
        assert found is not None
        assert found[0] == 3

    async def test_all_columns_are_covered(self, log: Log) -> None:
        names = await log.environment.query(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_log'"
        )
        assert {row[0] for row in names} == set(COLUMNS)

    @pytest.mark.parametrize(
        ("statements", "seq", "reason"),
        [
            (["DELETE FROM audit_log WHERE seq = 3"], 3, "it is missing"),
            (["DELETE FROM audit_log WHERE seq < 3"], 1, "the entries 1 to 2 are missing"),
            (["DELETE FROM audit_log WHERE seq > 4"], 5, "5 to 6 are missing: a checkpoint"),
            (["DELETE FROM audit_log"], 1, "the entries 1 to 6 are missing"),
            (["TRUNCATE audit_log"], 1, "the entries 1 to 6 are missing"),
            (
                [
                    "UPDATE audit_log SET seq = -seq WHERE seq IN (2, 3)",
                    "UPDATE audit_log SET seq = 5 + seq WHERE seq IN (-2, -3)",
                ],
                2,
                "",
            ),
            (
                [
                    "UPDATE audit_log SET seq = -seq WHERE seq > 2",
                    "UPDATE audit_log SET seq = 1 - seq WHERE seq < 0",
                    copy_statement(3, 2),
                ],
                3,
                "does not follow on entry 2",
            ),
            ([copy_statement(0, 1)], 0, "counted from 1"),
            (
                ["UPDATE audit_checkpoints SET signature = hash WHERE seq = 4"],
                4,
                "forged signature",
            ),
            (["UPDATE audit_checkpoints SET seq = 5 WHERE seq = 4"], 5, "forged signature"),
            (["UPDATE audit_checkpoints SET key_id = 'x' WHERE seq = 4"], 4, "unknown key 'x'"),
            (
                [FORGED, "DELETE FROM audit_log WHERE seq <= 4"],
                1,
                "the entries 1 to 4 are missing",
            ),
        ],
    )
    async def test_missing_added_swapped_or_forged_rows_are_detected(
        self, log: Log, statements: Sequence[str], seq: int, reason: str
    ) -> None:
        await log.tamper(*statements)
        found = await log.first_fault()
        assert found is not None
        assert found[0] == seq
        assert reason in found[1]

    async def test_deleted_checkpoint_is_detected(self, log: Log) -> None:
        await log.add(1)
        await log.signer.checkpoint_if_due()
        await log.tamper("DELETE FROM audit_checkpoints WHERE number = 2")
        found = await log.first_fault()
        assert found == (7, "checkpoints are missing: number 1 is followed by 3")

    async def test_rewritten_chain_is_detected_by_checkpoints(self, log: Log) -> None:
        """All entries from 3 on are replaced by a valid chain."""
        await log.tamper("DELETE FROM audit_log WHERE seq > 2")
        other = Log(log.environment, log.settings)
        await other.add(6)
        await other.database.close()
        found = await log.first_fault()
        assert found is not None
        assert found[0] == 4
        assert "is not the one that was signed" in found[1]

    async def test_truncation_with_checkpoints_is_detected_by_the_journal(self, log: Log) -> None:
        ((hashed,),) = await log.environment.query("SELECT hash FROM audit_log WHERE seq = 6")
        await log.tamper(
            "DELETE FROM audit_log WHERE seq > 4", "DELETE FROM audit_checkpoints WHERE seq > 4"
        )
        assert await log.first_fault() is None
        found = await log.first_fault(Head(6, hashed))
        assert found is not None
        assert found[0] == 5
        env = cli_environment(log.environment)
        code, out, error = await run(env, "audit", "verify", "--noted", f"6:{hashed.hex()}")
        assert (code, out) == (5, "")
        assert "audit: broken at entry 5: the entries 5 to 6 are missing" in error

    async def test_running_instance_detects_truncation_without_checkpoint(self, log: Log) -> None:
        await log.tamper("DELETE FROM audit_checkpoints", "DELETE FROM audit_log WHERE seq > 3")
        await log.add(1)
        assert await log.seqs() == [1, 2, 3, 7]
        assert await log.first_fault() == (4, "the entries 4 to 6 are missing")

    @pytest.mark.parametrize("entries", [6, 8])
    async def test_running_instance_does_not_continue_a_replaced_chain(
        self, log: Log, entries: int
    ) -> None:
        """A valid replacement chain that is as long as the known one, or longer."""
        await log.tamper("DELETE FROM audit_checkpoints", "DELETE FROM audit_log")
        async with log.other() as intruder:
            await intruder.add(entries)
        assert await log.first_fault() is None
        with capture_logs() as logged:
            await log.add(2)
        assert [one["event"] for one in logged if one["log_level"] == "error"] == ["audit_log_cut"]
        assert await log.seqs() == list(range(1, entries + 3))
        assert await log.first_fault() == (entries + 1, f"it does not follow on entry {entries}")

    async def test_entries_of_other_instances_are_continued(self, log: Log) -> None:
        async with log.other() as other:
            await other.add(2)
            await log.add(1)
            await other.add(1)
        assert await log.seqs() == list(range(1, 11))
        assert await log.first_fault() is None

    async def test_verification_reports_the_last_signed_entry(self, log: Log) -> None:
        await log.add(3)
        assert (await log.verify()).signed_through == 6
        await log.tamper("DELETE FROM audit_checkpoints")
        found = await log.verify()
        assert (found.intact, found.last_seq, found.signed_through) == (True, 9, None)

    async def test_previous_keys_verify(self, log: Log) -> None:
        def keys(**values: str) -> AuditKeys:
            return AuditKeys(log.environment.settings(**values).audit_keys)

        secret, new = log.settings.JWT_SECRET.get_secret_value(), "n" * 32
        assert await log.first_fault(keys=keys(AUDIT_KEY=new)) is None
        assert (
            await log.first_fault(keys=keys(JWT_SECRET=new, JWT_PREVIOUS_SECRETS=f"{secret},{new}"))
            is None
        )
        found = await log.first_fault(keys=keys(JWT_SECRET=new))
        assert found is not None
        assert "AUDIT_PREVIOUS_KEYS" in found[1]


ENTRY = (
    "INSERT INTO audit_log (seq, at, action, outcome, details, prev_hash, hash) "
    "VALUES ({seq}, {at}, 'login', 'success', {details}, '', '')"
)
CHECKPOINT = (
    "INSERT INTO audit_checkpoints SELECT {number}, purpose, {seq}, hash, {at}, key_id, signature "
    "FROM audit_checkpoints WHERE number = 2"
)
GOOD = {"seq": "7", "number": "3", "at": "now()", "details": "'{}'"}


def invalid_row(statement: str, **values: str) -> str:
    return statement.format(**(GOOD | values))


class TestInvalidRows:
    """Rows that the tables accept and the backend never writes.

    They follow entries 1 to 6 with checkpoints 1 and 2.
    """

    @pytest.mark.parametrize(
        ("statement", "seq"),
        [
            (invalid_row(ENTRY, at="'infinity'"), 7),
            (invalid_row(ENTRY, at="'-infinity'"), 7),
            (invalid_row(ENTRY, at="'20000-01-01'"), 7),
            (invalid_row(ENTRY, at="'4000-01-01 BC'"), 7),
            (invalid_row(ENTRY, seq=str(2**62)), 7),
            (invalid_row(ENTRY, seq=str(2**63 - 1)), 7),
            (invalid_row(ENTRY, seq=str(-(2**63))), -(2**63)),
            (invalid_row(ENTRY, details="'[1]'"), 7),
            (invalid_row(ENTRY, details="'null'"), 7),
            (invalid_row(ENTRY, details="'\"\\ud800\"'"), 7),
            (
                invalid_row(
                    ENTRY, details="('[' || repeat('[', 2000) || repeat(']', 2000) || ']')::json"
                ),
                7,
            ),
            (invalid_row(CHECKPOINT), 7),
            (invalid_row(CHECKPOINT, at="'infinity'"), 7),
            (invalid_row(CHECKPOINT, at="'20000-01-01'"), 7),
            (invalid_row(CHECKPOINT, seq=str(2**62)), 2**62),
            (invalid_row(CHECKPOINT, seq="4", number=str(2**63 - 1)), 4),
            (invalid_row(CHECKPOINT, seq="4", number=str(-(2**63))), 4),
        ],
    )
    async def test_invalid_row_is_reported_and_does_not_block(
        self, log: Log, statement: str, seq: int
    ) -> None:
        for count in (4, 2):
            await log.add(count)
            await log.signer.checkpoint_if_due()
        await log.environment.query(statement)
        found = await log.first_fault()
        assert found is not None
        assert found[0] == seq
        verifier = AuditVerifier(log.database, log.keys)
        service = AuditLogService(log.database, verifier, log.logger)
        page = await service.page(AuditFilter(), before=None, limit=50)
        count = len(await log.seqs())
        assert len(page.items) == count
        assert page.model_dump_json()
        for form in ("jsonl", "csv"):
            pieces = [piece async for piece in await service.export(AuditFilter(), form, None)]
            assert len(b"".join(pieces).splitlines()) >= count
        signed = len(await log.checkpoints())
        await log.signer.checkpoint_if_due()
        assert len(await log.checkpoints()) == signed + 1

    async def test_non_object_details_are_shown_as_text(self, log: Log) -> None:
        await log.environment.query(invalid_row(ENTRY, details="'[1, 2]'"))
        service = AuditLogService(log.database, AuditVerifier(log.database, log.keys), log.logger)
        (entry,) = (await service.page(AuditFilter(), before=None, limit=1)).items
        assert entry.details == {"unreadable": "[1, 2]"}


CHANGES = (
    "UPDATE audit_log SET actor = 'x'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "UPDATE audit_checkpoints SET seq = 2",
    "DELETE FROM audit_checkpoints",
    "TRUNCATE audit_checkpoints",
)
REPLACED_TRIGGER = (
    "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql "
    "AS 'BEGIN RETURN OLD; END'"
)


class TestAppendOnly:
    @pytest.mark.parametrize("statement", CHANGES)
    async def test_superuser_is_refused_by_triggers(self, log: Log, statement: str) -> None:
        await log.add(1)
        await log.signer.checkpoint_if_due()
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await log.environment.query(statement)
        await log.environment.query("SELECT audit_delete_through(0, 10)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await log.environment.query("SELECT audit_delete_through(1, 10)")
        assert await log.seqs() == [1]

    @pytest.mark.parametrize(
        "statement",
        [
            *CHANGES,
            "DROP TABLE audit_log",
            "ALTER TABLE audit_log DISABLE TRIGGER ALL",
            "DROP TRIGGER audit_log_rows ON audit_log",
            "DROP FUNCTION audit_refuse CASCADE",
            REPLACED_TRIGGER,
            "CREATE TABLE other (id int)",
            "SET session_replication_role = replica",
            "UPDATE alembic_version SET version_num = '0001'",
            "ALTER TABLE users ADD COLUMN other int",
        ],
    )
    async def test_application_role_has_no_rights_to_change(self, log: Log, statement: str) -> None:
        await log.add(1)
        application = await asyncpg.connect(log.environment.database_url)
        try:
            with pytest.raises(
                asyncpg.InsufficientPrivilegeError, match=r"permission denied|must be owner"
            ):
                await application.execute(statement)
        finally:
            await application.close()
        assert await log.seqs() == [1]

    async def test_owner_has_no_rights_to_change(self, log: Log) -> None:
        for table in ("audit_log", "audit_checkpoints"):
            ((rights,),) = await log.environment.query(
                "SELECT array_agg(privilege_type::text) FROM pg_class, aclexplode(relacl) "
                "WHERE relname = $1 AND grantee = relowner",
                table,
            )
            assert {"INSERT", "SELECT"} <= set(rights)
            assert not {"UPDATE", "DELETE", "TRUNCATE"} & set(rights)


async def read(backend: Backend, user: User, path: str = "", **query: Any) -> httpx.Response:
    headers = bearer(backend.token_of(user))
    return await backend.http.get(f"/admin/audit{path}", params=query, headers=headers)


class TestReading:
    @pytest.fixture
    async def admin(self, backend: Backend) -> User:
        return await backend.add_user("admin@shield.test", Role.ADMIN)

    async def test_denied_access_is_recorded_with_address_and_request_id(
        self, backend: Backend, admin: User
    ) -> None:
        viewer = await backend.add_user("viewer@shield.test")
        denied = await read(backend, viewer)
        check_problem(denied, 403, "not-permitted")
        page = (await read(backend, admin, action="access.denied")).json()
        (entry,) = page["items"]
        assert entry["actor"] == "viewer@shield.test"
        assert entry["actor_id"] == str(viewer.id)
        assert entry["outcome"] == "denied"
        assert entry["target"] == "GET /admin/audit"
        assert entry["address"] == "127.0.0.1"
        assert entry["request_id"] == denied.headers["x-request-id"]
        assert page["next_cursor"] is None

    async def test_pagination_and_filters(self, backend: Backend, admin: User) -> None:
        for number in range(5):
            await backend.services.audit.logger.record(
                event(f"user:{number % 2}", actor_id=admin.id)
            )
        await backend.services.audit.logger.record(
            AuditEvent(Action.LOGOUT, Outcome.FAILURE, actor="b")
        )
        first = (await read(backend, admin, limit=4)).json()
        assert [one["seq"] for one in first["items"]] == [6, 5, 4, 3]
        assert (await read(backend, admin, limit=4, cursor="")).json() == first
        rest = (await read(backend, admin, limit=4, cursor=first["next_cursor"])).json()
        assert [one["seq"] for one in rest["items"]] == [2, 1]
        assert rest["next_cursor"] is None
        # Clients of earlier releases use these names.
        by_old_names = await read(backend, admin, limit=4, before=first["next_before"])
        assert by_old_names.json() == rest
        for cursor in ("0", "-1", "x", "9" * 19):
            check_problem(await read(backend, admin, cursor=cursor), 400, "bad-cursor")
        moment = first["items"][2]["at"]
        for query, seqs in (
            ({"actor": "alice@shield.test"}, [5, 4, 3, 2, 1]),
            ({"actor": str(admin.id)}, [5, 4, 3, 2, 1]),
            # The account is also found in entries that have only its id.
            ({"actor": "Admin@shield.test"}, [5, 4, 3, 2, 1]),
            ({"action": "logout"}, [6]),
            ({"outcome": "failure"}, [6]),
            ({"target": "user:0"}, [5, 3, 1]),
            ({"since": moment}, [6, 5, 4]),
            ({"until": moment}, [3, 2, 1]),
            ({"target": "user:1", "actor": "nobody"}, []),
        ):
            page = (await read(backend, admin, **query)).json()
            assert [one["seq"] for one in page["items"]] == seqs, query

    async def test_invalid_parameters_are_reported(self, backend: Backend, admin: User) -> None:
        wrong: tuple[tuple[str, Any], ...] = (
            ("limit", 0),
            ("limit", 201),
            ("before", 0),
            ("before", 2**63),
            ("action", "dance"),
            ("outcome", "maybe"),
            ("actor", "a\0b"),
            ("target", "x" * 513),
            ("since", "yesterday"),
            ("since", "2026-01-01T00:00:00"),
            ("since", "1700000000"),
            ("until", "-99999999999"),
            ("until", "9999-12-31T23:59:59-12:00"),
        )
        for name, value in wrong:
            answer = await read(backend, admin, **{name: value})
            body = check_problem(answer, 422, "invalid-request")
            assert [one["field"] for one in body["errors"]] == [f"query.{name}"]

    async def test_exports_are_complete_and_without_formulas(
        self, backend: Backend, admin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.services.audit.log_service._PAGE", 2)
        for actor in ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", 'plain, "quoted"'):
            await backend.services.audit.logger.record(AuditEvent(Action.LOGIN, actor=actor))
        lines = await read(backend, admin, "/export", format="jsonl")
        assert lines.headers["content-type"].startswith("application/jsonl")
        entries = [orjson.loads(line) for line in lines.text.splitlines()]
        assert [one["seq"] for one in entries] == [1, 2, 3, 4, 5, 6]
        assert entries[0]["actor"] == "=cmd|' /C calc'!A0"
        assert entries[5]["action"] == "audit.export"
        table = await read(backend, admin, "/export", format="csv", action="login")
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert [row["actor"] for row in rows] == [
            "'=cmd|' /C calc'!A0",
            "'+1",
            "'-1",
            "'@SUM(A1)",
            'plain, "quoted"',
        ]
        assert list(rows[0]) == list(entries[0])
        check_problem(await read(backend, admin, "/export", format="xls"), 422, "invalid-request")

    async def test_verification(
        self, backend: Backend, admin: User, environment: Environment
    ) -> None:
        log = Log(environment, backend.settings)
        await log.add(3)
        await log.signer.checkpoint_if_due()
        whole = (await read(backend, admin, "/verify")).json()
        assert whole["intact"] is True
        assert (whole["first_seq"], whole["last_seq"], whole["broken"]) == (1, 3, None)
        await log.tamper("UPDATE audit_log SET outcome = 'failure' WHERE seq = 2")
        await log.database.close()
        broken = (await read(backend, admin, "/verify")).json()
        assert broken["intact"] is False
        assert broken["broken"] == {"seq": 2, "reason": "its content does not fit its hash"}
        page = (await read(backend, admin, action="audit.verify")).json()
        assert [one["outcome"] for one in page["items"]] == ["failure", "success"]

    async def test_concurrent_verifications_are_shared(
        self, backend: Backend, admin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verify = AuditVerifier.verify
        begun: list[asyncio.Event] = []

        async def slowly(verifier: AuditVerifier) -> Any:
            begun.append(asyncio.Event())
            await begun[-1].wait()
            return await verify(verifier)

        monkeypatch.setattr(AuditVerifier, "verify", slowly)
        first = asyncio.create_task(read(backend, admin, "/verify"))
        await until(lambda: len(begun) == 1)
        others = [asyncio.create_task(read(backend, admin, "/verify")) for _ in range(3)]
        lock = backend.services.audit.log._verifying
        await until(lambda: len(lock._waiters or ()) == len(others))
        begun[0].set()
        assert (await first).json()["intact"] is True
        await until(lambda: len(begun) == 2)
        begun[1].set()
        answers = [(await other).json() for other in others]
        assert len(begun) == 2
        # The entry of the first verification was recorded before the second one began.
        assert [answer["last_seq"] for answer in answers] == [1, 1, 1]

    async def test_export_is_streamed(
        self, backend: Backend, admin: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.services.audit.log_service._PAGE", 1)
        for number in range(3):
            await backend.services.audit.logger.record(event(f"user:{number}"))
        go_on = asyncio.Event()
        after = audit_rows.after

        async def waiting(session: Any, seq: int | None, *values: Any) -> Any:
            if seq is not None:
                await go_on.wait()
            return await after(session, seq, *values)

        monkeypatch.setattr(audit_rows, "after", waiting)
        headers = bearer(backend.token_of(admin))
        async with backend.http.stream("GET", "/admin/audit/export", headers=headers) as response:
            lines = response.aiter_lines()
            assert orjson.loads(await anext(lines))["seq"] == 1
            go_on.set()
            assert [orjson.loads(line)["seq"] async for line in lines] == [2, 3, 4]

    async def test_other_roles_are_refused(self, backend: Backend) -> None:
        for role in (Role.CONTRIBUTOR, Role.VIEWER):
            user = await backend.add_user(f"{role}@shield.test", role)
            for path in ("", "/export", "/verify"):
                check_problem(await read(backend, user, path), 403, "not-permitted")


def recorded(error: str) -> list[str]:
    """Return the actions that a command has written to the journal."""
    lines = [orjson.loads(line) for line in error.splitlines() if line.startswith("{")]
    return [line["action"] for line in lines if line["event"] == "audit"]


class TestCommands:
    async def test_verify_and_export(self, environment: Environment, log: Log) -> None:
        await log.add(2)
        env = cli_environment(environment)
        code, out, error = await run(env, "audit", "verify")
        assert (code, out) == (0, "audit: entries 1 to 2 are whole, not signed, 0 checkpoints\n")
        assert recorded(error) == ["audit.verify"]
        code, out, _ = await run(env, "audit", "export", "--format", "jsonl")
        assert code == 0
        actions = [orjson.loads(line)["action"] for line in out.splitlines()]
        assert actions == ["login", "login", "audit.verify", "audit.export"]
        assert await run(env, "audit", "retain") == (0, "audit: 0 entries deleted\n", "")

    async def test_verification_of_a_read_only_database(
        self, environment: Environment, log: Log
    ) -> None:
        await log.add(2)
        ((name,),) = await environment.query("SELECT current_database()")
        await environment.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        env = cli_environment(environment)
        code, out, error = await run(env, "audit", "verify")
        assert (code, out) == (0, "audit: entries 1 to 2 are whole, not signed, 0 checkpoints\n")
        assert "audit: that it was verified could not be recorded: " in error
        assert "read-only" in error
        await log.tamper("UPDATE audit_log SET actor = 'x' WHERE seq = 2")
        code, out, error = await run(env, "audit", "verify")
        assert (code, out) == (5, "")
        assert "audit: broken at entry 2: " in error

    @pytest.mark.parametrize("noted", ["x", "1", "1:", ":00", "0:" + "00" * 32, "1:" + "0g" * 32])
    async def test_invalid_noted_head_is_reported(
        self, environment: Environment, noted: str
    ) -> None:
        code, out, error = await run(
            cli_environment(environment), "audit", "verify", "--noted", noted
        )
        assert (code, out) == (2, "")
        assert f"--noted: '{noted}' is no SEQ:HASH; write an entry's number" in error

    async def test_export_to_a_closed_pipe_and_a_full_disk(
        self, environment: Environment, log: Log
    ) -> None:
        await log.add(1)
        reading, closed = os.pipe()
        os.close(reading)
        full = os.open("/dev/full", os.O_WRONLY)
        for output, code, said in ((closed, 0, ""), (full, 4, "No space left on device")):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "src.cli", "audit", "export"),
                cwd=BACKEND,
                env=cli_environment(environment),
                stdout=output,
                stderr=asyncio.subprocess.PIPE,
            )
            os.close(output)
            _, error = await process.communicate()
            assert process.returncode == code
            assert recorded(error.decode()) == ["audit.export"]
            complaints = [line for line in error.decode().splitlines() if not line.startswith("{")]
            assert said in "".join(complaints)
            assert bool(complaints) is bool(said)
            assert b"PostgreSQL" not in error


class TestOutages:
    async def test_entries_are_queued_without_blocking(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
            audit = backend.services.audit.logger
            await audit.record(event("before"))
            await database_proxy.refuse()
            async with asyncio.timeout(10):
                for number in range(20):
                    await audit.record(event(f"during:{number}"))

            async def is_reported() -> bool:
                check = (await backend.health())["checks"]["audit"]
                return bool(check["status"] == "down") and "20 entries of the audit" in str(check)

            await until(is_reported)
            assert (await backend.health())["status"] == "degraded"
            await database_proxy.accept()
            await until(lambda: audit.waiting == 0, 15)
            rows = await environment.query("SELECT target FROM audit_log ORDER BY seq")
            assert [row[0] for row in rows] == ["before", *(f"during:{n}" for n in range(20))]
            await until(lambda: audit.status == "ready")

    async def test_dropped_entries_are_counted_and_reported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_logger, "_MAX_QUEUED", 3)
        async with running(settings_of(SHUTDOWN_GRACE_SECONDS=2), healthy=False) as backend:
            audit = backend.services.audit.logger
            async with asyncio.timeout(10):
                for _ in range(5):
                    await audit.record(event())
            assert (audit.waiting, audit.dropped) == (3, 2)
            detail = (await backend.health())["checks"]["audit"]["detail"]
            assert "2 entries stand in the journal only" in detail
            text = (await backend.http.get("/metrics")).text
            assert "ag_ui_audit_dropped_total 2.0" in text
