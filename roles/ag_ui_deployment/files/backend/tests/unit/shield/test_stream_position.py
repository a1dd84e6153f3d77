"""What Redis's counters prove about missing entries, on a simulated stream."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, StreamId
from src.services.shield.stream_position import (
    MissedEntries,
    StreamPosition,
    StreamState,
    count_missed,
    was_replaced,
)
from tests.support.builders import stream_id

BEGIN = StreamPosition(ZERO, 0)


@dataclass
class Stream:
    """A stream with Redis's counters, and a reader that gets every entry that still exists."""

    kept: list[StreamId] = field(default_factory=list)
    added: int = 0
    deleted: StreamId = ZERO
    position: StreamPosition = BEGIN
    trimmed_unread: int = 0

    def add(self, count: int) -> None:
        self.kept += [stream_id(self.added + n) for n in range(1, count + 1)]
        self.added += count

    def trim(self, length: int) -> None:
        gone, self.kept = self.kept[: -length or None], self.kept[-length:] if length else []
        if length >= len(gone) + len(self.kept):
            return
        self.trimmed_unread += sum(one > self.position.id for one in gone)

    def delete(self, number: int) -> None:
        if self.kept:
            self.deleted = max(self.deleted, self.kept.pop(number % len(self.kept)))

    def state(self) -> StreamState:
        return StreamState(
            first=self.kept[0] if self.kept else None,
            last=stream_id(self.added) if self.added else ZERO,
            added=self.added,
            length=len(self.kept),
            deleted=self.deleted,
        )

    def read(self, maximum: int) -> MissedEntries | None:
        """Read entries.

        Return what the counters say is missing between the position and the stream.
        """
        missing = count_missed(self.position, self.state())
        new = [one for one in self.kept if one > self.position.id][:maximum]
        skipped = missing.entries if missing else 0
        if new or skipped:
            self.position = self.position.advanced(
                new[-1] if new else self.state().last, skipped + len(new)
            )
        return missing


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 20)),
        st.tuples(st.just("trim"), st.integers(0, 10)),
        st.tuples(st.just("read"), st.integers(1, 30)),
    ),
    max_size=40,
)


@given(STEPS)
def test_missing_entries_are_the_trimmed_unread_ones(steps: list[tuple[str, int]]) -> None:
    stream = Stream()
    counted = 0
    for name, number in [*steps, ("read", 10_000)]:
        missing = getattr(stream, name)(number)
        if missing is not None:
            assert missing.certain
            counted += missing.entries
    assert counted == stream.trimmed_unread


@given(STEPS, st.lists(st.integers(0, 100), max_size=5))
def test_deleted_entries_are_never_counted_as_certain(
    steps: list[tuple[str, int]], deletions: list[int]
) -> None:
    stream = Stream()
    counted = 0
    with_deletions = [("delete", number) for number in deletions]
    for name, number in [*steps[:20], *with_deletions, *steps[20:], ("read", 10_000)]:
        missing = getattr(stream, name)(number)
        if missing is not None and missing.certain:
            counted += missing.entries
    assert counted <= stream.trimmed_unread


STATE = StreamState(stream_id(5), stream_id(10), added=10, length=6, deleted=ZERO)


def test_entries_read_before_the_state_was_taken_are_not_missing() -> None:
    position = StreamPosition(stream_id(2), 2)
    assert count_missed(position, STATE) == MissedEntries(2, certain=True)
    assert count_missed(position, STATE, [stream_id(4), stream_id(5)]) == MissedEntries(
        1, certain=True
    )
    assert count_missed(position, STATE, [stream_id(3), stream_id(4)]) is None


def test_position_without_count_proves_nothing() -> None:
    assert count_missed(StreamPosition(stream_id(2)), STATE) is None


def test_count_is_certain_if_deletions_are_confirmed() -> None:
    state = replace_state(deleted=stream_id(2))
    assert count_missed(StreamPosition(stream_id(2), 2, stream_id(2)), state) == MissedEntries(
        2, certain=True
    )
    assert count_missed(StreamPosition(stream_id(2), 2, stream_id(1)), state) == MissedEntries(
        2, certain=False
    )


def replace_state(**changes: object) -> StreamState:
    return STATE._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("position", "changes", "another"),
    [
        (StreamPosition(stream_id(7), 7), {}, False),
        (StreamPosition(stream_id(2), 2), {}, False),
        (StreamPosition(stream_id(7)), {}, False),
        # The stream's newest entry is older than the reader's position.
        (StreamPosition(stream_id(11), 11), {}, True),
        # The stream has had fewer entries than were read.
        (StreamPosition(stream_id(7), 11), {}, True),
        # The stream has all entries it ever had, and begins after the reader's position.
        (StreamPosition(stream_id(2), 2), {"added": 6}, True),
        (StreamPosition(stream_id(2)), {"added": 6}, True),
        (StreamPosition(stream_id(5)), {"added": 6}, False),
    ],
)
def test_recreated_stream_is_detected(
    position: StreamPosition, changes: dict[str, int], *, another: bool
) -> None:
    assert was_replaced(position, replace_state(**changes)) is another


def test_absent_stream_is_another_stream() -> None:
    assert was_replaced(StreamPosition(stream_id(1)), None)


def test_state_is_parsed_from_xinfo() -> None:
    info = {
        "length": 2,
        "recorded-first-entry-id": b"5-1",
        "last-generated-id": b"18446744073709551615-3",
        "max-deleted-entry-id": b"4-0",
        "entries-added": 9,
    }
    state = StreamState.of(info)
    assert state == StreamState(
        StreamId(5, 1), StreamId(2**64 - 1, 3), added=9, length=2, deleted=StreamId(4, 0)
    )
    assert state.removed == 7
    empty = StreamState.of(info | {"length": 0, "recorded-first-entry-id": b"0-0"})
    assert empty.first is None
