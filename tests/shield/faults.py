"""How real producers spoil a story: repeats, late events, holes, unknown types, garbage. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from tests.shield.envelope import Entry, Malformed, ShieldEvent
from tests.shield.jobs import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random


def repeated(
    rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.1
) -> list[ShieldEvent]:
    """Some events come again within two seconds: same event id, new stream id."""
    again = [
        replace(event, at=event.at + timedelta(seconds=rng.uniform(0.01, 2)))
        for event in events
        if rng.random() < share
    ]
    return sorted([*events, *again], key=lambda event: event.at)


def late(rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.1) -> list[ShieldEvent]:
    """Some events are published after their successors, with the timestamp they had."""
    places = [
        index + (rng.uniform(1.1, 4) if rng.random() < share else 0) for index in range(len(events))
    ]
    return [event for _, event in sorted(zip(places, events, strict=True), key=lambda it: it[0])]


def with_holes(
    rng: Random, events: Sequence[ShieldEvent], *, share: float = 0.05
) -> list[ShieldEvent]:
    """Some events never come."""
    return [event for event in events if rng.random() >= share]


def after_the_end(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """A worker that did not notice reports progress after the job's end."""
    last = events[-1]
    straggler = replace(
        last,
        type="job:progress",
        event_id=new_id(rng),
        at=last.at + timedelta(seconds=0.5),
        data={"status": "processing", "percent": 50, "message": "still here"},
    )
    return [*events, straggler]


def of_unknown_type(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """A newer producer mixes in a type that nobody has announced."""
    index = rng.randrange(1, len(events))
    before = events[index - 1]
    stranger = replace(
        before,
        type=rng.choice(("cache:warmed", "job:paused", "llm.token", "telemetry")),
        event_id=new_id(rng),
        data={"note": "of a newer version", "value": rng.random()},
    )
    return [*events[:index], stranger, *events[index:]]


def large(rng: Random, event: ShieldEvent, *, size: int = 1024 * 1024) -> ShieldEvent:
    """The event with a payload of about `size` bytes, which is valid."""
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
"""What makes an entry poison, by name."""


def malformed(rng: Random, at: datetime, flaw: str | None = None) -> Malformed:
    """An entry that belongs into the dead letters; `flaw` is one of FLAWS, else any."""
    name = flaw or rng.choice(list(FLAWS))
    return Malformed(flaw=name, at=at, raw=FLAWS[name](_well_formed(rng, at)))


def spoiled(rng: Random, events: Sequence[ShieldEvent]) -> list[Entry]:
    """A job with the faults of an ordinary bad day: each kind of fault in about a third of jobs."""
    spoilers: tuple[Callable[[Random, Sequence[ShieldEvent]], list[ShieldEvent]], ...] = (
        repeated,
        late,
        with_holes,
        of_unknown_type,
        after_the_end,
    )
    told = list(events)
    for spoil in spoilers:
        if len(told) > 1 and rng.random() < 0.3:
            told = spoil(rng, told)
    entries: list[Entry] = list(told)
    if rng.random() < 0.3:
        index = rng.randrange(len(entries))
        entries.insert(index, malformed(rng, entries[index].at))
    return entries


def in_time(entries: Sequence[Entry], factor: float) -> list[tuple[float, Entry]]:
    """Each entry with the seconds after the first at which it is due, `factor` times as fast.

    The order of the entries stands, whatever their timestamps say.
    """
    due: list[tuple[float, Entry]] = []
    newest = 0.0
    for entry in entries:
        newest = max(newest, (entry.at - entries[0].at).total_seconds() / factor)
        due.append((newest, entry))
    return due
