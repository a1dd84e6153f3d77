"""The checks of the trials detect lost, duplicate, unauthorised and malformed events."""

from __future__ import annotations

import re
from array import array
from dataclasses import asdict

import pytest

from tests.scenarios.support.event_source import (
    ARRIVAL,
    BrokenHttpError,
    Browser,
    ChunkedBody,
    EventSource,
    Judge,
    Notes,
    Server,
    position,
    stream_id,
)
from tests.scenarios.support.load import Load, Published
from tests.scenarios.support.load_clients import Heard
from tests.scenarios.support.oracle import check_heard, check_stored, expected, lost

BROWSER = Browser("one", "/events", "token")
VISITOR = Browser("one", "/events", "token", forgets=True)
DUE = [position(f"{1000 + number}-{number % 3}") for number in range(20)]
FRAME = b'id: %d-0\nevent: RAW\ndata: {"type":"RAW","event":{}}\n\n'


def heard(*places: int, **notes: object) -> Heard:
    return Heard({**asdict(Notes()), **notes}, array("q", places))


@pytest.mark.parametrize("places", [DUE, DUE[3:]], ids=["all", "from where it joined"])
def test_complete_delivery_is_accepted(places: list[int]) -> None:
    check_heard(BROWSER, heard(*places, refused={"502": 3}), DUE, DUE[3])


@pytest.mark.parametrize(
    ("places", "notes", "complaint"),
    [
        ([], {}, "has seen nothing"),
        (DUE[4:], {}, "missed what came after it had joined"),
        (DUE[:7] + DUE[8:], {}, "1 of 20 events missing: 1007-1;"),
        (DUE[:-1], {}, "1 of 20 events missing: 1019-1;"),
        ([*DUE, DUE[-1] + 1], {}, "1 that it must not see: 1019-2;"),
        (DUE[:5] + DUE[4:], {}, "0 of 20 events missing"),
        (DUE, {"violations": ["connection 1: 5-0 after 6-0"]}, "5-0 after 6-0"),
        (DUE, {"refused": {"401": 1}}, "was refused"),
    ],
)
def test_incomplete_delivery_is_rejected(
    places: list[int], notes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        check_heard(BROWSER, heard(*places, **notes), DUE, DUE[3])


def test_returning_browser_may_miss_events_while_disconnected() -> None:
    check_heard(VISITOR, heard(*DUE[:5], ARRIVAL, *DUE[9:12], ARRIVAL), DUE, DUE[0])


def test_returning_browser_must_not_miss_events_while_connected() -> None:
    with pytest.raises(AssertionError, match="1 of 3 events missing: 1010-1"):
        check_heard(VISITOR, heard(*DUE[:5], ARRIVAL, DUE[9], DUE[11]), DUE, DUE[0])


def load_of(*events: tuple[str, str]) -> Load:
    load = Load("redis://127.0.0.1:1", [None], per_second=1)
    load.log = [Published(event_id, "job", None, written) for event_id, written in events]
    return load


def test_lost_foreign_and_duplicate_rows_are_found() -> None:
    load = load_of(("a", "1-0"), ("b", "2-0"), ("c", "3-0"))
    assert lost(load, {"a": ["1-0"], "b": ["2-5"]}) == load.log[1:]
    check_stored(load, {"a": ["1-0"], "b": ["2-0"]})
    with pytest.raises(AssertionError, match="never published"):
        check_stored(load, {"x": ["1-0"]})
    with pytest.raises(AssertionError, match="stored twice"):
        check_stored(load, {"a": ["1-0", "1-1"]})
    load.doubted.add("a")
    check_stored(load, {"a": ["1-0", "1-1"]})


def test_duplicate_is_expected_at_its_first_position() -> None:
    events = load_of(("a", "3-0"), ("b", "4-0"), ("b", "5-0")).log
    assert expected(events, {"a": ["1-0", "3-0"]}) == [position("1-0"), position("4-0")]


def test_chunked_body_is_decoded_wherever_the_bytes_are_split() -> None:
    body = b"5\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"
    for cut in range(len(body)):
        chunked = ChunkedBody()
        content = chunked.feed(body[:cut]) + chunked.feed(body[cut:])
        assert content == b"helloabcdefghijklmnopqrstuvwxyz"
        assert chunked.ended


def test_chunk_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(BrokenHttpError):
        ChunkedBody().feed(b"2\r\nhello\r\n")


def source(*, judged: bool = False) -> EventSource:
    server = Server("127.0.0.1", 1, "nobody", "")
    return EventSource(Browser("one", "/events", "token", judged=judged), server, tls=None)  # type: ignore[arg-type]


def test_frames_are_read_wherever_the_bytes_are_split() -> None:
    frames = b"retry: 2500\n\n: hello\n\n" + b"".join(FRAME % number for number in (7, 8, 9))
    for cut in range(len(frames)):
        one = source()
        one.take(frames[:cut])
        one.take(frames[cut:])
        assert list(map(stream_id, one.positions)) == ["7-0", "8-0", "9-0"]
        assert not one.notes.violations


def test_position_frame_is_no_event_and_sets_the_last_event_id() -> None:
    one = source()
    one.take(b"id: 6-0\n\n" + FRAME % 7 + b": keep-alive\nid: 8-9223372036854775807\n\n")
    assert list(map(stream_id, one.positions)) == ["7-0"]
    assert b"\r\nLast-Event-ID: 8-9223372036854775807\r\n" in one._request()


def test_repeated_id_is_a_violation() -> None:
    one = source()
    one.take(FRAME % 7 + FRAME % 8 + FRAME % 8)
    assert one.notes.violations == ["connection 0: 8-0 after 8-0"]


def test_gap_notice_is_recorded() -> None:
    one = source()
    one.take(b'event: CUSTOM\ndata: {"type":"CUSTOM","name":"hx.shield.gap","value":{}}\n\n')
    assert len(one.notes.gaps) == 1


def test_invalid_run_is_a_violation() -> None:
    judge = Judge()
    with pytest.raises(AssertionError, match="the first event is RAW"):
        judge.feed(b'event: RAW\ndata: {"type":"RAW","event":{},"metadata":{"job_id":"j"}}\n\n')
