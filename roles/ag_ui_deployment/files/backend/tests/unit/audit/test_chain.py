"""The encoding of audit entries is complete and unambiguous."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.audit import Entry
from src.services.audit.chain import START, chain, digest, encode

ENTRY = Entry(
    at=datetime(2026, 5, 1, 12, 0, 0, 123456, UTC),
    action="login",
    outcome="success",
    actor_id=UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427"),
    actor="alice@shield.test",
    target="user:1",
    address="127.0.0.1",
    request_id="r-1",
    details='{"a":1}',
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_MAYBE = st.none() | _TEXT
_ENTRIES = st.builds(
    Entry,
    at=st.datetimes(timezones=st.just(UTC)),
    action=_TEXT,
    outcome=_TEXT,
    actor_id=st.none() | st.uuids(),
    actor=_MAYBE,
    target=_MAYBE,
    address=_MAYBE,
    request_id=_MAYBE,
    details=_TEXT,
)


def decode(encoded: bytes) -> tuple[int, Entry, bytes]:
    """Decode an entry as the chain is documented: a decodable encoding is unambiguous."""
    assert encoded[:1] == b"\x01"
    rest = encoded[1:]
    values: list[bytes | None] = []
    while rest:
        if rest[:1] == b"\x00":
            values.append(None)
            rest = rest[1:]
            continue
        end = 9 + int.from_bytes(rest[1:9], "big")
        values.append(rest[9:end])
        rest = rest[end:]
    seq, at, *texts, prev_hash = values
    assert seq is not None
    assert at is not None
    assert prev_hash is not None
    read = [None if one is None else one.decode() for one in texts]
    named = dict(zip([one.name for one in fields(Entry)][1:], read, strict=True))
    actor_id = named.pop("actor_id")
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(at))
    entry = Entry(at=moment, actor_id=UUID(actor_id) if actor_id else None, **named)  # type: ignore[arg-type]
    return int(seq), entry, prev_hash


@given(st.integers(1, 2**63 - 1), _ENTRIES, st.binary(min_size=32, max_size=32))
def test_encoding_is_decodable(seq: int, entry: Entry, prev_hash: bytes) -> None:
    assert decode(encode(seq, entry, prev_hash)) == (seq, entry, prev_hash)


@given(_ENTRIES, _ENTRIES)
def test_different_entries_have_different_encodings(one: Entry, other: Entry) -> None:
    same = encode(1, one, START.hash) == encode(1, other, START.hash)
    assert same == (one == other)


@pytest.mark.parametrize("name", [one.name for one in fields(Entry)])
def test_hash_depends_on_every_field(name: str) -> None:
    value = getattr(ENTRY, name)
    others: dict[type, Any] = {
        datetime: ENTRY.at + timedelta(microseconds=1),
        UUID: None,
        str: f"{value}x",
    }
    changed = replace(ENTRY, **{name: others[type(value)]})
    assert digest(1, changed, START.hash) != digest(1, ENTRY, START.hash)


def test_null_differs_from_the_empty_string() -> None:
    absent, empty = replace(ENTRY, actor=None), replace(ENTRY, actor="")
    assert encode(1, absent, START.hash) != encode(1, empty, START.hash)


def test_field_boundaries_are_part_of_the_encoding() -> None:
    one = replace(ENTRY, actor="ab", target="c")
    other = replace(ENTRY, actor="a", target="bc")
    assert encode(1, one, START.hash) != encode(1, other, START.hash)


def test_each_entry_contains_the_hash_of_its_predecessor() -> None:
    first, second = chain(START, [ENTRY, ENTRY])
    assert (first.seq, first.prev_hash) == (1, bytes(32))
    assert (second.seq, second.prev_hash) == (2, first.hash)
    assert first.hash != second.hash


def test_hash_is_stable_across_releases() -> None:
    """A different value would mean that stored chains no longer verify."""
    assert digest(1, ENTRY, START.hash).hex() == (
        "91937826ba689a75d938c36057e27fe90e4e98a510d65c6d0ba72a8f839f40e0"
    )


def test_encoding_does_not_depend_on_the_tzinfo_object() -> None:
    same = replace(ENTRY, at=ENTRY.at.astimezone(timezone(timedelta(0))))
    assert encode(1, same, START.hash) == encode(1, ENTRY, START.hash)
