"""The keys of the audit log: signatures of checkpoints and keyed digests."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from src.models.audit import CheckpointRow, Head
from src.services.audit.chain import encode_fields, microseconds

_VERSION = b"\x01checkpoint"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The signed statement that the entry `head.seq` had the hash `head.hash`.

    `purpose` is a text and no enum, since a row of the table may hold any value.
    """

    number: int
    purpose: str
    head: Head
    at: datetime


class AuditKeys:
    """The first key signs, all verify."""

    def __init__(self, keys: Sequence[str]) -> None:
        signing, *previous = map(_derived, keys)
        # Former releases signed with the setting itself instead of a derived key.
        all_keys = (signing, *previous, *map(str.encode, keys))
        self._known = {_id_of(key): key for key in all_keys}
        self._signing = _id_of(signing)

    def sign(self, checkpoint: Checkpoint) -> CheckpointRow:
        return CheckpointRow(
            number=checkpoint.number,
            purpose=checkpoint.purpose,
            seq=checkpoint.head.seq,
            hash=checkpoint.head.hash,
            at=checkpoint.at,
            key_id=self._signing,
            signature=_signature(self._known[self._signing], checkpoint),
        )

    def digest(self, content: bytes) -> tuple[str, bytes]:
        """Compute a keyed digest. Returns the id of the key and the digest."""
        return self._signing, _keyed_digest(self._known[self._signing], content)

    def has_key(self, key_id: str) -> bool:
        return key_id in self._known

    def verify_digest(self, content: bytes, key_id: str, digest: bytes) -> bool:
        """Whether `digest` is the digest of `content` under a known key."""
        return hmac.compare_digest(_keyed_digest(self._known[key_id], content), digest)

    def find_fault(self, row: CheckpointRow) -> str | None:
        """Why a checkpoint is not valid; None if it is."""
        key = self._known.get(row.key_id)
        if key is None:
            return (
                f"its checkpoint is signed with the unknown key {row.key_id[:64]!r}: "
                "set the key that signed it in AUDIT_PREVIOUS_KEYS"
            )
        statement = Checkpoint(row.number, row.purpose, Head(row.seq, row.hash), row.at)
        if not hmac.compare_digest(_signature(key, statement), row.signature):
            return "its checkpoint has a forged signature"
        return None


def _signature(key: bytes, checkpoint: Checkpoint) -> bytes:
    fields = (
        str(checkpoint.number),
        checkpoint.purpose,
        str(checkpoint.head.seq),
        checkpoint.head.hash,
        microseconds(checkpoint.at),
    )
    return hmac.digest(key, _VERSION + encode_fields(fields), "sha256")


def _keyed_digest(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, b"\x01digest" + content, "sha256")


def _derived(secret: str) -> bytes:
    kdf = HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"shield-ag-ui audit checkpoints")
    return kdf.derive(secret.encode())


def _id_of(key: bytes) -> str:
    """An id that does not reveal the key."""
    return hmac.new(key, b"key id", sha256).hexdigest()[:16]
