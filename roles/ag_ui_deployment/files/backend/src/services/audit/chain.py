"""The hash chain of the audit log: the encoding of entries, and their hashes.

The hash of an entry is SHA-256 over its encoding, which is

    version (1 byte, 0x01), then eleven fields in this order:
    seq, at, action, outcome, actor_id, actor, target, address, request_id, details, prev_hash

A field is 0x00 if it is absent, else 0x01, its length in bytes (8 bytes, big-endian), and its bytes.
Numbers are in decimal, `at` is in microseconds since 1970, UTC, `actor_id` is a UUID in canonical form,
texts are in UTF-8, and `details` is the stored JSON text: keys sorted, no spaces. The length prefixes
make the encoding injective. `prev_hash` of the first entry is 32 zero bytes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from src.models.audit import ChainLink, Entry, Head

_VERSION = b"\x01"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LENGTH_BYTES = 8


START = Head(0, bytes(hashlib.sha256().digest_size))


def chain(head: Head, entries: Sequence[Entry]) -> Iterator[ChainLink]:
    """Number and hash entries, to append them after `head`."""
    for entry in entries:
        seq = head.seq + 1
        link = ChainLink(seq, entry, head.hash, digest(seq, entry, head.hash))
        head = link.head
        yield link


def digest(seq: int, entry: Entry, prev_hash: bytes) -> bytes:
    return hashlib.sha256(encode(seq, entry, prev_hash)).digest()


def encode(seq: int, entry: Entry, prev_hash: bytes) -> bytes:
    return _VERSION + encode_fields(
        (
            str(seq),
            microseconds(entry.at),
            entry.action,
            entry.outcome,
            None if entry.actor_id is None else str(entry.actor_id),
            entry.actor,
            entry.target,
            entry.address,
            entry.request_id,
            entry.details,
            prev_hash,
        )
    )


def encode_fields(values: Iterable[str | bytes | None]) -> bytes:
    """Encode fields as defined above."""
    return b"".join(map(_field, values))


def microseconds(at: datetime) -> str:
    return str((at - _EPOCH) // _MICROSECOND)


def _field(value: str | bytes | None) -> bytes:
    if value is None:
        return b"\x00"
    content = value.encode() if isinstance(value, str) else value
    return b"\x01" + len(content).to_bytes(_LENGTH_BYTES, "big") + content
