"""Faults of real producers: duplicates, late events, gaps, unknown types, garbage. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from tests.shield.envelope import Entry, Malformed, ShieldEvent
from tests.shield.jobs import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random


def with_duplicates(
    rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.1
) -> list[ShieldEvent]:
    """Repeat some events within two seconds, with the same event id and a new stream id."""
    duplicates = [
        replace(event, at=event.at + timedelta(seconds=rng.uniform(0.01, 2)))
        for event in events
        if rng.random() < share
    ]
    return sorted([*events, *duplicates], key=lambda event: event.at)


def with_late_events(
    rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.1
) -> list[ShieldEvent]:
    """Publish some events after their successors, with their original timestamp."""
    positions = [
        index + (rng.uniform(1.1, 4) if rng.random() < share else 0) for index in range(len(events))
    ]
    return [event for _, event in sorted(zip(positions, events, strict=True), key=lambda it: it[0])]


def with_gaps(
    rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.05
) -> list[ShieldEvent]:
    """Drop some events."""
    return [event for event in events if rng.random() >= share]


def with_event_after_end(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Add a worker's progress event after the end of the job."""
    last = events[-1]
    extra = replace(
        last,
        type="job:progress",
        event_id=new_id(rng),
        at=last.at + timedelta(seconds=0.5),
        data={"status": "processing", "percent": 50, "message": "still here"},
    )
    return [*events, extra]


def with_unknown_type(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Insert an event of an unknown type, as a newer producer would."""
    index = rng.randrange(1, len(events))
    previous = events[index - 1]
    unknown = replace(
        previous,
        type=rng.choice(("cache:warmed", "job:paused", "llm.token", "telemetry")),
        event_id=new_id(rng),
        data={"note": "of a newer version", "value": rng.random()},
    )
    return [*events[:index], unknown, *events[index:]]


def enlarged(rng: Random, event: ShieldEvent, *, size: int = 1024 * 1024) -> ShieldEvent:
    """Return the valid event with a payload of about `size` bytes."""
    data = {**event.data, "text": "x" * size}
    return replace(event, event_id=new_id(rng), data=data)


def _well_formed(rng: Random, at: datetime) -> dict[bytes, bytes]:
    event = ShieldEvent(
        type="job:progress", at=at, event_id=new_id(rng), job_id=new_id(rng), data={"percent": 1}
    )
    return event.fields()


def _with(**fields: bytes) -> Callable[[dict[bytes, bytes]], dict[bytes, bytes]]:
    return lambda raw: raw | {name.encode(): value for name, value in fields.items()}


def _without(*names: str) -> Callable[[dict[bytes, bytes]], dict[bytes, bytes]]:
    return lambda raw: {k: v for k, v in raw.items() if k.decode() not in names}


FLAWS: Final[dict[str, Callable[[dict[bytes, bytes]], dict[bytes, bytes]]]] = {
    "no type": _without("type"),
    "empty type": _with(type=b""),
    "data is not JSON": _with(data=b"{'percent': 1}"),
    "data is cut off": _with(data=b'{"percent": '),
    "data is a list": _with(data=b"[1, 2]"),
    "data is null": _with(data=b"null"),
    "data is not UTF-8": _with(data=b'{"name": "\xff\xfe"}'),
    "type is not UTF-8": _with(type=b"job:\xff"),
    "nothing of the envelope": lambda _raw: {b"hello": b"world"},
}
"""Functions that make a valid entry malformed, by name of the flaw."""


def malformed(rng: Random, at: datetime, flaw: str | None = None) -> Malformed:
    """Return an entry for the dead letters; `flaw` is a key of FLAWS, or None for a random one."""
    name = flaw or rng.choice(list(FLAWS))
    return Malformed(flaw=name, at=at, raw=FLAWS[name](_well_formed(rng, at)))


def with_random_faults(rng: Random, events: Sequence[ShieldEvent]) -> list[Entry]:
    """Apply faults to a job; each kind of fault affects about a third of the jobs."""
    faults: tuple[Callable[[Random, Sequence[ShieldEvent]], list[ShieldEvent]], ...] = (
        with_duplicates,
        with_late_events,
        with_gaps,
        with_unknown_type,
        with_event_after_end,
    )
    changed = list(events)
    for fault in faults:
        if len(changed) > 1 and rng.random() < 0.3:
            changed = fault(rng, changed)
    entries: list[Entry] = list(changed)
    if rng.random() < 0.3:
        index = rng.randrange(len(entries))
        entries.insert(index, malformed(rng, entries[index].at))
    return entries


def with_due_times(entries: Sequence[Entry], factor: float) -> list[tuple[float, Entry]]:
    """Pair each entry with its due time in seconds after the first, `factor` times as fast.

    Keeps the order of the entries whatever their timestamps are.
    """
    due: list[tuple[float, Entry]] = []
    newest = 0.0
    for entry in entries:
        newest = max(newest, (entry.at - entries[0].at).total_seconds() / factor)
        due.append((newest, entry))
    return due
