"""The checks of the load clients detect lost, duplicate, unauthorised and malformed events."""

from __future__ import annotations

import re
from array import array
from dataclasses import asdict

import pytest

from tests.scenarios.support.delivery_checks import (
    check_received,
    check_stored,
    expected_positions,
    lost_events,
)
from tests.scenarios.support.event_source import (
    SESSION_START,
    BrokenHttpError,
    Browser,
    ChunkedBody,
    ClientStats,
    EventSource,
    Server,
    StreamChecker,
    position,
    stream_id,
)
from tests.scenarios.support.load import Load, Published
from tests.scenarios.support.load_clients import ClientResult

BROWSER = Browser("one", "/events", "token")
RETURNING_BROWSER = Browser("one", "/events", "token", starts_new_session=True)
EXPECTED = [position(f"{1000 + number}-{number % 3}") for number in range(20)]
FRAME = b'id: %d-0\nevent: RAW\ndata: {"type":"RAW","event":{}}\n\n'


def client_result(*positions: int, **stats: object) -> ClientResult:
    return ClientResult({**asdict(ClientStats()), **stats}, array("q", positions))


@pytest.mark.parametrize(
    "positions", [EXPECTED, EXPECTED[3:]], ids=["all", "from its connection on"]
)
def test_complete_delivery_is_accepted(positions: list[int]) -> None:
    check_received(BROWSER, client_result(*positions, refused={"502": 3}), EXPECTED, EXPECTED[3])


def test_events_from_before_the_load_are_ignored() -> None:
    earlier = [EXPECTED[0] - 2, EXPECTED[0] - 1]
    check_received(BROWSER, client_result(*earlier, *EXPECTED), EXPECTED, EXPECTED[3])


def test_retried_event_may_have_its_former_id() -> None:
    former = EXPECTED[5] - 1
    received = [*EXPECTED[:5], former, *EXPECTED[6:]]
    check_received(BROWSER, client_result(*received), EXPECTED, EXPECTED[3], {EXPECTED[5]})
    for positions, retried in (
        (received, {EXPECTED[4]}),
        ([*EXPECTED[:5], former, *EXPECTED[5:]], {EXPECTED[5]}),
        (EXPECTED[:5] + EXPECTED[6:], {EXPECTED[5]}),
    ):
        with pytest.raises(AssertionError, match="of 20 events missing"):
            check_received(BROWSER, client_result(*positions), EXPECTED, EXPECTED[3], retried)


@pytest.mark.parametrize(
    ("positions", "stats", "message"),
    [
        ([], {}, "received nothing"),
        (EXPECTED[4:], {}, "missed events after it had connected"),
        (EXPECTED[:7] + EXPECTED[8:], {}, "1 of 20 events missing: 1007-1;"),
        (EXPECTED[:-1], {}, "1 of 20 events missing: 1019-1;"),
        ([*EXPECTED, EXPECTED[-1] + 1], {}, "1 unexpected: 1019-2;"),
        (EXPECTED[:5] + EXPECTED[4:], {}, "0 of 20 events missing"),
        (EXPECTED, {"violations": ["connection 1: 5-0 after 6-0"]}, "5-0 after 6-0"),
        (EXPECTED, {"refused": {"401": 1}}, "was refused"),
    ],
)
def test_incomplete_delivery_is_rejected(
    positions: list[int], stats: dict[str, object], message: str
) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_received(BROWSER, client_result(*positions, **stats), EXPECTED, EXPECTED[3])


def test_returning_browser_may_miss_events_while_disconnected() -> None:
    check_received(
        RETURNING_BROWSER,
        client_result(*EXPECTED[:5], SESSION_START, *EXPECTED[9:12], SESSION_START),
        EXPECTED,
        EXPECTED[0],
    )


def test_returning_browser_must_not_miss_events_while_connected() -> None:
    with pytest.raises(AssertionError, match="1 of 3 events missing: 1010-1"):
        check_received(
            RETURNING_BROWSER,
            client_result(*EXPECTED[:5], SESSION_START, EXPECTED[9], EXPECTED[11]),
            EXPECTED,
            EXPECTED[0],
        )


def load_of(*events: tuple[str, str]) -> Load:
    load = Load("redis://127.0.0.1:1", [None], per_second=1)
    load.log = [Published(event_id, "job", None, written) for event_id, written in events]
    return load


def test_lost_foreign_and_duplicate_rows_are_found() -> None:
    load = load_of(("a", "1-0"), ("b", "2-0"), ("c", "3-0"))
    assert lost_events(load, {"a": ["1-0"], "b": ["2-5"]}) == load.log[1:]
    check_stored(load, {"a": ["1-0"], "b": ["2-0"]})
    with pytest.raises(AssertionError, match="never published"):
        check_stored(load, {"x": ["1-0"]})
    with pytest.raises(AssertionError, match="stored twice"):
        check_stored(load, {"a": ["1-0", "1-1"]})
    load.retried.add("a")
    check_stored(load, {"a": ["1-0", "1-1"]})


def test_duplicate_is_expected_at_its_first_position() -> None:
    events = load_of(("a", "3-0"), ("b", "4-0"), ("b", "5-0")).log
    assert expected_positions(events, {"a": ["1-0", "3-0"]}) == [position("1-0"), position("4-0")]


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


def event_source(*, checked: bool = False) -> EventSource:
    server = Server("127.0.0.1", 1, "nobody", "")
    return EventSource(Browser("one", "/events", "token", checked=checked), server, tls=None)  # type: ignore[arg-type]


def test_frames_are_read_wherever_the_bytes_are_split() -> None:
    frames = b"retry: 2500\n\n: hello\n\n" + b"".join(FRAME % number for number in (7, 8, 9))
    for cut in range(len(frames)):
        browser_source = event_source()
        browser_source.feed(frames[:cut])
        browser_source.feed(frames[cut:])
        assert list(map(stream_id, browser_source.positions)) == ["7-0", "8-0", "9-0"]
        assert not browser_source.stats.violations


def test_position_frame_is_no_event_and_sets_the_last_event_id() -> None:
    browser_source = event_source()
    browser_source.feed(b"id: 6-0\n\n" + FRAME % 7 + b": keep-alive\nid: 8-9223372036854775807\n\n")
    assert list(map(stream_id, browser_source.positions)) == ["7-0"]
    assert b"\r\nLast-Event-ID: 8-9223372036854775807\r\n" in browser_source._request()


def test_repeated_id_is_a_violation() -> None:
    browser_source = event_source()
    browser_source.feed(FRAME % 7 + FRAME % 8 + FRAME % 8)
    assert browser_source.stats.violations == ["connection 0: 8-0 after 8-0"]


def test_gap_notice_is_recorded() -> None:
    browser_source = event_source()
    browser_source.feed(
        b'event: CUSTOM\ndata: {"type":"CUSTOM","name":"hx.shield.gap","value":{}}\n\n'
    )
    assert len(browser_source.stats.gaps) == 1


def test_invalid_run_is_a_violation() -> None:
    checker = StreamChecker()
    with pytest.raises(AssertionError, match="the first event is RAW"):
        checker.feed(b'event: RAW\ndata: {"type":"RAW","event":{},"metadata":{"job_id":"j"}}\n\n')
