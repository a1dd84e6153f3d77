"""Serialisation of SSE frames: delimiters and ids."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from src.services.agui.events import custom
from src.services.agui.sse import comment, dump_line, encode, retry
from tests.run_checker import parse_frames
from tests.support.builders import stream_id


def test_encoded_frame_bytes() -> None:
    frame = encode([custom("n", {"a": None}, {"timestamp": 1})], stream_id(2))
    assert frame == (
        b"id: 1763856000001-0\nevent: CUSTOM\n"
        b'data: {"type":"CUSTOM","timestamp":1,"name":"n","value":{"a":null}}\n\n'
    )


def test_only_the_last_frame_of_a_record_has_the_id() -> None:
    events = [custom(name, 0, {}) for name in "abc"]
    frames = parse_frames(encode(events, stream_id(2)))
    assert [frame.id for frame in frames] == [None, None, "1763856000001-0"]


def test_frame_without_record_has_no_id() -> None:
    (frame,) = parse_frames(encode([custom("n", 1, {})]))
    assert frame.id is None


def test_no_events_encode_to_no_bytes() -> None:
    assert encode([], stream_id(1)) == b""


def test_line_separators_are_escaped() -> None:
    text = "a\nb\r\nc\rd\u2028e\u2029f\x0bg\x85h\0"
    body = encode([custom("n", text, {})], stream_id(1))
    (frame,) = parse_frames(body)
    assert frame.json()["value"] == text
    assert body.count(b"\n") == 4
    assert b"\r" not in body
    assert body.decode().splitlines() == body.decode().split("\n")[:-1]


@given(st.text(alphabet='\\"a\n\x85\u0085\u2028\u2029\xc2€\u2027\u202a'))
def test_one_line_keeps_any_text(text: str) -> None:
    data = dump_line({text: text})
    assert orjson.loads(data) == {text: text}
    assert len(data.decode().splitlines()) == 1


def test_retry_and_comment_frames() -> None:
    assert retry(1500) == b"retry: 1500\n\n"
    assert comment("x") == b": x\n\n"
