"""Invariants after a fault: each published event is stored once and received once."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from tests.scenarios.support.event_source import ARRIVAL, position, stream_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.scenarios.support.event_source import Browser
    from tests.scenarios.support.load import Load, Published
    from tests.scenarios.support.load_clients import Heard
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


def lost(load: Load, rows: Mapping[str, Sequence[str]]) -> list[Published]:
    """Return the events that Redis accepted and PostgreSQL does not hold."""
    return [event for event in load.log if event.stream_id not in rows.get(event.event_id, ())]


def check_stored(load: Load, rows: Mapping[str, Sequence[str]]) -> None:
    """Check that only published events are stored, and duplicates only for retries.

    A retry is an XADD that the publisher repeated because it got no response.
    """
    published = {event.event_id for event in load.log}
    strangers = rows.keys() - published
    assert not strangers, f"stored and never published: {sorted(strangers)[:5]}"
    twice = {event_id for event_id, written in rows.items() if len(written) > 1} - load.doubted
    assert not twice, f"stored twice: {[rows[event_id] for event_id in sorted(twice)[:5]]}"


def expected(events: Iterable[Published], rows: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the positions at which clients see these events; the first one for a duplicate."""
    first: dict[str, int] = {}
    for event in events:
        places = map(position, (event.stream_id, *rows.get(event.event_id, ())))
        first[event.event_id] = min(*places, first.get(event.event_id, sys.maxsize))
    return sorted(first.values())


def check_heard(browser: Browser, heard: Heard, due: Sequence[int], joined: int) -> None:
    """Check that a browser received everything while it was connected, once and in order.

    Args:
        browser: The browser's settings.
        heard: What it received.
        due: The positions of all events that it may see.
        joined: The position by which it was connected. It stays connected to the end, unless
            its settings make it leave.
    """
    notes, name = heard.notes, browser.name
    assert not notes["violations"], f"{name}: {notes['violations'][:3]}"
    refused = notes["refused"].keys() - {"502", "503", "504"}
    assert not refused, f"{name} was refused: {notes['refused']}"
    visits = _visits(heard.positions)
    assert visits, f"{name} has seen nothing: {notes}"
    assert visits[0][0] <= joined, f"{name} missed what came after it had joined: {notes}"
    for got in visits:
        first = bisect_left(due, got[0])
        last = len(due) if got is visits[-1] and not browser.forgets else bisect_right(due, got[-1])
        if got != due[first:last]:
            raise AssertionError(f"{name}: {_difference(got, due[first:last])}; {notes}")


def _visits(positions: Iterable[int]) -> list[list[int]]:
    """Split the positions at each arrival without a last event id."""
    parts = groupby(positions, key=lambda place: place == ARRIVAL)
    return [list(part) for is_arrival, part in parts if not is_arrival]


def _difference(got: Sequence[int], due: Sequence[int]) -> str:
    missing, extra = sorted(set(due) - set(got)), sorted(set(got) - set(due))
    return (
        f"{len(missing)} of {len(due)} events missing: {_some(missing)}; "
        f"{len(extra)} that it must not see: {_some(extra)}"
    )


def _some(places: Sequence[int]) -> str:
    shown = [stream_id(place) for place in (places[:3] if len(places) > 4 else places)]
    return f"{', '.join(shown)} … {stream_id(places[-1])}" if len(places) > 4 else ", ".join(shown)
