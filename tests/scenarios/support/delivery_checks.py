"""Invariants after a fault: each published event is stored once and received once."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from tests.scenarios.support.event_source import SESSION_START, UNAVAILABLE, position, stream_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.scenarios.support.event_source import Browser
    from tests.scenarios.support.load import Load, Published
    from tests.scenarios.support.load_clients import ClientResult
    from tests.scenarios.support.site import Site


def stored_rows(site: Site, load: Load) -> dict[str, list[str]]:
    """Return the stream ids of the load's events in PostgreSQL, by event id."""
    jobs = ",".join(sorted({event.job_id for event in load.log}))
    rows = site.sql(
        "SELECT event_id, stream_ms || '-' || stream_seq FROM events "  # noqa: S608 - ids of our own
        f"WHERE job_id = ANY('{{{jobs}}}') ORDER BY stream_ms, stream_seq"
    )
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        event_id, _, written = row.partition("|")
        found[event_id].append(written)
    return found


def lost_events(load: Load, rows: Mapping[str, Sequence[str]]) -> list[Published]:
    """Return the events that Redis accepted and PostgreSQL does not hold."""
    return [event for event in load.log if event.stream_id not in rows.get(event.event_id, ())]


def check_stored(load: Load, rows: Mapping[str, Sequence[str]]) -> None:
    """Check that only published events are stored, and duplicates only for retries.

    A retry is an XADD that the publisher repeated because it got no response.
    """
    published = {event.event_id for event in load.log}
    unknown = rows.keys() - published
    assert not unknown, f"stored and never published: {sorted(unknown)[:5]}"
    duplicated = {event_id for event_id, written in rows.items() if len(written) > 1} - load.retried
    assert not duplicated, (
        f"stored twice: {[rows[event_id] for event_id in sorted(duplicated)[:5]]}"
    )


def expected_positions(events: Iterable[Published], rows: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the positions at which clients receive these events; the first one for a duplicate."""
    first: dict[str, int] = {}
    for event in events:
        positions = map(position, (event.stream_id, *rows.get(event.event_id, ())))
        first[event.event_id] = min(*positions, first.get(event.event_id, sys.maxsize))
    return sorted(first.values())


def check_received(
    browser: Browser,
    result: ClientResult,
    expected: Sequence[int],
    connected_at: int,
    retried: Collection[int] = (),
) -> None:
    """Check that a browser received everything while it was connected, once and in order.

    Events before the first expected one are ignored: a browser receives them if the instance had
    not read all that was published before the load.

    A Redis that fails may have shown an event to one host only, before the publisher repeated it at
    the next primary. A browser of that host has the former id of the event in place of the later one.

    Args:
        browser: The browser's settings.
        result: What it received.
        expected: The positions of all events that it may see.
        connected_at: The position by which it was connected. It stays connected to the end, unless
            its settings make it leave.
        retried: Those expected positions whose events the publisher sent again.
    """
    stats, name = result.stats, browser.name
    assert not stats["violations"], f"{name}: {stats['violations'][:3]}"
    refused = stats["refused"].keys() - UNAVAILABLE
    assert not refused, f"{name} was refused: {stats['refused']}"
    sessions = _sessions(it for it in result.positions if it == SESSION_START or it >= expected[0])
    assert sessions, f"{name} received nothing: {stats}"
    assert sessions[0][0] <= connected_at, f"{name} missed events after it had connected: {stats}"
    for session in sessions:
        first = bisect_left(expected, session[0])
        last = (
            len(expected)
            if session is sessions[-1] and not browser.starts_new_session
            else bisect_right(expected, session[-1])
        )
        due = expected[first:last]
        if session != due and not _has_other_ids_of(retried, session, due):
            raise AssertionError(f"{name}: {_difference(session, due)}; {stats}")


def _has_other_ids_of(
    retried: Collection[int], session: Sequence[int], expected: Sequence[int]
) -> bool:
    """Whether a session lacks only retried events, and has one other event in place of each."""
    missing, extra = set(expected) - set(session), set(session) - set(expected)
    increases = all(one < following for one, following in pairwise(session))
    return increases and missing <= set(retried) and len(extra) == len(missing)


def _sessions(positions: Iterable[int]) -> list[list[int]]:
    """Split the positions at each arrival without a last event id."""
    parts = groupby(positions, key=lambda number: number == SESSION_START)
    return [list(part) for is_start, part in parts if not is_start]


def _difference(session: Sequence[int], expected: Sequence[int]) -> str:
    missing, extra = sorted(set(expected) - set(session)), sorted(set(session) - set(expected))
    return (
        f"{len(missing)} of {len(expected)} events missing: {_shorten(missing)}; "
        f"{len(extra)} unexpected: {_shorten(extra)}"
    )


def _shorten(positions: Sequence[int]) -> str:
    shown = [stream_id(number) for number in (positions[:3] if len(positions) > 4 else positions)]
    return (
        f"{', '.join(shown)} … {stream_id(positions[-1])}"
        if len(positions) > 4
        else ", ".join(shown)
    )
