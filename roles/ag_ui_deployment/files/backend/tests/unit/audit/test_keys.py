"""Checkpoints verify by their signature with any of the known keys."""

import hmac
from datetime import UTC, datetime

import pytest

from src.models.audit import CheckpointPurpose, CheckpointRow
from src.services.audit import keys as audit_keys
from src.services.audit.chain import START
from src.services.audit.keys import AuditKeys, Checkpoint

OLD, NEW = "o" * 32, "n" * 32
STATEMENT = Checkpoint(1, CheckpointPurpose.INTERVAL, START, datetime(2026, 5, 1, tzinfo=UTC))


def test_first_key_signs_and_previous_keys_verify() -> None:
    row = AuditKeys([OLD]).sign(STATEMENT)
    assert AuditKeys([NEW, OLD]).find_fault(row) is None
    assert AuditKeys([NEW, OLD]).sign(STATEMENT).key_id == AuditKeys([NEW]).sign(STATEMENT).key_id
    assert "AUDIT_PREVIOUS_KEYS" in str(AuditKeys([NEW]).find_fault(row))


def test_signature_with_the_underived_key_verifies() -> None:
    key = OLD.encode()
    row = AuditKeys([OLD]).sign(STATEMENT)
    row.key_id = hmac.digest(key, b"key id", "sha256").hex()[:16]
    row.signature = audit_keys._signature(key, STATEMENT)
    assert AuditKeys([NEW, OLD]).find_fault(row) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", 2),
        ("purpose", "retention"),
        ("purpose", "none of ours"),
        ("seq", 1),
        ("hash", b"x" * 32),
        ("at", datetime(2026, 5, 2, tzinfo=UTC)),
        ("signature", b""),
    ],
)
def test_every_column_is_signed(column: str, value: object) -> None:
    keys = AuditKeys([NEW])
    row: CheckpointRow = keys.sign(STATEMENT)
    setattr(row, column, value)
    assert keys.find_fault(row) == "its checkpoint has a forged signature"
