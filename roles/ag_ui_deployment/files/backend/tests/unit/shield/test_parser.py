"""Parsing of stream entries: values, derived fields, and reasons for refusal."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import Poison, ShieldEvent, StreamId
from src.repositories.events import moment
from src.services.consumer.job_changes import summarize
from src.services.event_service import fold
from src.services.shield.event_types import END_STATUS
from src.services.shield.parser import Fields, dump_fields, load_fields, parse_entry, read_id
from tests.support.builders import fields_of, shield_event
from tests.support.strategies import DATA

ID = StreamId(1_763_856_000_000, 7)
LIMIT = 2 * 1024 * 1024


def entry(**fields: str | bytes) -> dict[bytes, bytes]:
    """Return a valid entry with these fields added or replaced."""
    whole = {"event_id": "e-1", "type": "job:progress", "job_id": "j-1", "data": "{}"} | fields
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in whole.items()
    }


def without(name: str) -> dict[bytes, bytes]:
    return {key: value for key, value in entry().items() if key != name.encode()}


def read(fields: Fields) -> ShieldEvent:
    parsed = parse_entry(ID, fields, LIMIT)
    assert isinstance(parsed, ShieldEvent), parsed
    return parsed


def refusal(fields: Fields, limit: int = LIMIT) -> str:
    parsed = parse_entry(ID, fields, limit)
    assert isinstance(parsed, Poison), parsed
    assert parsed.id == ID
    return parsed.reason


class TestReading:
    def test_complete_entry(self) -> None:
        event = read(
            entry(
                timestamp="2025-11-23T00:00:00.250+00:00",
                data='{"percent": 12.5, "none": null}',
                metadata='{"workspace": "library"}',
            )
        )
        assert event == ShieldEvent(
            id=ID,
            event_id="e-1",
            type="job:progress",
            timestamp=1_763_856_000_250,
            job_id="j-1",
            data={"percent": 12.5, "none": None},
            metadata={"workspace": "library"},
        )

    @pytest.mark.parametrize("job", ["", "  "])
    def test_empty_job_id_is_none(self, job: str) -> None:
        assert read(entry(job_id=job)).job_id is None

    def test_missing_job_id_is_none(self) -> None:
        assert read(without("job_id")).job_id is None

    def test_event_id_defaults_to_the_stream_id(self) -> None:
        assert read(without("event_id")).event_id == str(ID)

    @pytest.mark.parametrize("name", ["data", "metadata"])
    def test_empty_json_is_an_empty_object(self, name: str) -> None:
        assert getattr(read(entry(**{name: ""})), name) == {}

    def test_missing_data_is_an_empty_object(self) -> None:
        assert read(without("data")).data == {}

    def test_unknown_fields_are_ignored(self) -> None:
        assert read(entry(trace_id=b"\xff\xfe")) == read(entry())

    def test_non_ascii_text(self) -> None:
        event = read(entry(type="größe:é", data='{"n": "\u2028 \\u0000 ü \\ud83d\\ude00"}'))
        assert event.type == "größe:é"
        assert event.data == {"n": "\u2028 \0 ü 😀"}

    def test_overlong_workspace_is_refused(self) -> None:
        assert read(entry(metadata='{"workspace": "%s"}' % ("x" * 200))).workspace == "x" * 200
        reason = refusal(entry(metadata='{"workspace": "%s"}' % ("x" * 201)))
        assert reason == "metadata.workspace: is longer than 200 characters"

    @given(DATA)
    def test_any_json_object_is_unchanged(self, data: dict[str, object]) -> None:
        event = shield_event(data=data)
        assert parse_entry(event.id, fields_of(event), LIMIT) == event


class TestTimestamp:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2025-11-23T00:00:00", 1_763_856_000_000),
            ("2025-11-23T00:00:00Z", 1_763_856_000_000),
            ("2025-11-23 01:00:00+01:00", 1_763_856_000_000),
            ("2025-11-23T00:00:00.123456", 1_763_856_000_123),
            ("2025-11-23", 1_763_856_000_000),
            ("1970-01-01T00:00:00Z", 0),
        ],
    )
    def test_iso_8601_without_offset_is_utc(self, text: str, expected: int) -> None:
        assert read(entry(timestamp=text)).timestamp == expected

    def test_missing_timestamp_is_the_time_of_the_stream_id(self) -> None:
        assert read(without("timestamp")).timestamp == ID.ms

    @pytest.mark.parametrize("text", ["yesterday", "1763856000", "2025-13-01", "{}", "12:00"])
    def test_other_formats_are_refused(self, text: str) -> None:
        assert refusal(entry(timestamp=text)).startswith("timestamp:")

    def test_before_1970_is_refused(self) -> None:
        assert refusal(entry(timestamp="1969-12-31T23:59:59Z")).startswith("timestamp:")

    @pytest.mark.parametrize(
        "text",
        [
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:59-14:00",
            "0001-01-01T00:00:00+14:00",
        ],
    )
    def test_limits_of_datetime_are_refused_or_storable(self, text: str) -> None:
        parsed = parse_entry(ID, entry(timestamp=text), LIMIT)
        if isinstance(parsed, ShieldEvent):
            moment(parsed.timestamp)
        else:
            assert parsed.reason.startswith("timestamp:")

    @pytest.mark.parametrize("ms", [0, 253_402_300_800_000, 2**53, 2**63 - 1])
    def test_time_of_any_stream_id_is_storable(self, ms: int) -> None:
        parsed = parse_entry(StreamId(ms, 1), without("timestamp"), LIMIT)
        assert isinstance(parsed, ShieldEvent)
        moment(parsed.timestamp)

    @given(st.integers(0, 253_402_300_799_999))
    def test_database_type_keeps_milliseconds(self, milliseconds: int) -> None:
        assert round(moment(milliseconds).timestamp() * 1000) == milliseconds


class TestPoison:
    def test_missing_type(self) -> None:
        assert refusal(without("type")) == "type: is missing"

    @pytest.mark.parametrize("value", ["", " \t\n"])
    def test_empty_type(self, value: str) -> None:
        assert refusal(entry(type=value)) == "type: is missing"

    @pytest.mark.parametrize("name", ["type", "event_id", "job_id", "timestamp"])
    def test_names_that_are_not_utf_8(self, name: str) -> None:
        assert refusal(entry(**{name: b"job:\xff"})).startswith(f"{name}:")

    @pytest.mark.parametrize("name", ["type", "event_id", "job_id"])
    @pytest.mark.parametrize("value", ["a\0b", "a\nb", "a\x1bb", "a\u2028b", "x" * 201])
    def test_names_with_control_characters_or_too_long(self, name: str, value: str) -> None:
        assert refusal(entry(**{name: value})).startswith(f"{name}:")

    @pytest.mark.parametrize("name", ["data", "metadata"])
    @pytest.mark.parametrize(
        "value",
        [
            b"{'percent': 1}",
            b'{"percent": ',
            b"[1, 2]",
            b"null",
            b'"text"',
            b"7",
            b'{"n": "\xff\xfe"}',
            b'{"n": "a\nb"}',
            b'{"n": NaNs}',
            b'{"n": "\\ud800}',
            b"\0",
            b'{"n": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            b'{"n": ' + b"[" * 300 + b"]" * 300 + b"}",
        ],
        ids=lambda value: value[:20].decode("ascii", "backslashreplace"),
    )
    def test_invalid_json_object(self, name: str, value: bytes) -> None:
        assert refusal(entry(**{name: value})).startswith(f"{name}:")

    def test_entry_above_the_size_limit(self) -> None:
        fields = entry(data=orjson.dumps({"text": "x" * 5_000_000}))
        assert "5000" in refusal(fields)
        assert isinstance(parse_entry(ID, fields, 6_000_000), ShieldEvent)

    def test_unrelated_fields(self) -> None:
        assert refusal({b"hello": b"world"}) == "type: is missing"

    @given(
        st.dictionaries(
            st.sampled_from(
                (b"event_id", b"type", b"timestamp", b"job_id", b"data", b"metadata", b"\xff")
            ),
            st.binary(max_size=40),
        )
    )
    def test_no_entry_raises(self, fields: dict[bytes, bytes]) -> None:
        parsed = parse_entry(ID, fields, LIMIT)
        assert parsed.id == ID
        if isinstance(parsed, Poison):
            assert parsed.reason
            assert "\0" not in parsed.reason


class TestRepairs:
    @pytest.mark.parametrize("name", ["data", "metadata"])
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b'{"n": NaN}', {"n": None}),
            (b'{"n": [Infinity, -Infinity, 1e400, -1e400, 1.5]}', {"n": [None] * 4 + [1.5]}),
            (b'{"n": "NaN \\\\ud800", "m": NaN}', {"n": "NaN \\ud800", "m": None}),
            (b'{"n": "a\\ud800b\\udc00"}', {"n": "a\ufffdb\ufffd"}),
            (b'{"n": "\\ud83d\\ude00 \\ude00\\ud83d"}', {"n": "\U0001f600 \ufffd\ufffd"}),
            (b'{"\\udfff": 1}', {"\ufffd": 1}),
            (b'{"n": "\xed\xa0\x80"}', {"n": "\ufffd"}),
            (b'{"n": NaN, "m": 99999999999999999999}', {"n": None, "m": 1e20}),
            (b'{"n": [%b, -%b]}' % (b"9" * 400, b"9" * 5_000), {"n": [None, None]}),
            (
                b'{"n": NaN, "m": [-9223372036854775808, 18446744073709551615, 1%b]}' % (b"0" * 30),
                {"n": None, "m": [-(2**63), 2**64 - 1, 1e30]},
            ),
        ],
    )
    def test_harmless_faults_are_repaired(self, name: str, value: bytes, expected: object) -> None:
        assert getattr(read(entry(**{name: value})), name) == expected

    def test_repaired_data_has_the_same_depth_limit(self) -> None:
        deep = b'{"a": NaN, "b": ' + b"[" * 300 + b"]" * 300 + b"}"
        assert refusal(entry(data=deep)).startswith("data:")


ENDS = sorted(END_STATUS)


class TestEndOfUnreadableJob:
    """The end of a job is recognised even if its data cannot be parsed."""

    @pytest.mark.parametrize("kind", ENDS)
    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            ({"data": b"{'pages': 3}"}, "data: is no JSON"),
            ({"data": b"[1]"}, "data: is no JSON object"),
            ({"data": b'{"n": "\xff"}'}, "data: is no JSON"),
            ({"data": b'{"x": "' + b"x" * LIMIT + b'"}'}, "entry: "),
            ({"timestamp": b"yesterday"}, "timestamp: "),
            ({"event_id": b"\xff"}, "event_id: "),
            ({"metadata": b"{"}, "metadata: "),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_job_ends(self, kind: str, broken: dict[str, bytes], reason: str) -> None:
        fields = entry(type=kind, job_id="j") | {
            name.encode(): value for name, value in broken.items()
        }
        event = read(fields)
        assert (event.id, event.type, event.job_id) == (ID, kind, "j")
        assert event.data["unreadable"].startswith(reason)
        assert fold(None, event).events[-1]["type"] in {"RUN_FINISHED", "RUN_ERROR"}
        (change,) = summarize([event])
        assert change.end is not None
        assert len(orjson.dumps(event.data)) < 70_000
        if "metadata" in broken:
            assert event.data.keys() == {"unreadable"}
        else:
            assert event.workspace == read(entry()).workspace

    @pytest.mark.parametrize(
        "broken", [{"job_id": b"\xff"}, {"job_id": b""}, {"type": b"job:\xff"}]
    )
    def test_unknown_job_does_not_end(self, broken: dict[str, bytes]) -> None:
        fields = entry(type="job:complete", data="{") | {
            name.encode(): value for name, value in broken.items()
        }
        assert refusal(fields)


class TestDumpedFields:
    def test_dump_is_readable_json(self) -> None:
        kept = dump_fields({b"type": b"job", b"data": b"\xff"})
        assert orjson.loads(kept) == {"type": "job", "data": {"base64": "/w=="}}

    @given(st.dictionaries(st.binary(), st.binary(), min_size=1))
    def test_complete_dump_loads_to_the_same_fields(self, fields: dict[bytes, bytes]) -> None:
        assert load_fields(dump_fields(fields)) == fields

    @pytest.mark.parametrize("kept", [b"", b"{}", b'{"type": "jo', b"[]", b'{"a": 1}', b"\xff"])
    def test_invalid_dump_is_not_loaded(self, kept: bytes) -> None:
        assert load_fields(kept) is None

    def test_truncated_dump_is_not_loaded(self) -> None:
        for size in (64 * 1024 - 14, 64 * 1024 - 10, 64 * 1024, 5_000_000):
            fields = {b"data": b"x" * size}
            kept = load_fields(dump_fields(fields))
            assert kept is None or kept == fields
        assert load_fields(dump_fields({b"data": b"x" * 64 * 1024})) is None

    def test_dump_is_bounded(self) -> None:
        kept = dump_fields({b"data": b"x" * 5_000_000, b"more": b"\xff" * 5_000_000})
        assert len(kept) <= 64 * 1024


class TestDepth:
    """Data must be serialisable again: in PostgreSQL, and in frames that nest it deeper."""

    @pytest.mark.parametrize("inner", [b"[%s]", b'{"a":%s}'])
    def test_maximum_depth_can_be_serialised(self, inner: bytes) -> None:
        event = read(entry(data=nested(inner, 238)))
        frame: object = dict(event.data)
        for _ in range(16):
            frame = [frame]
        assert orjson.dumps(frame)

    @pytest.mark.parametrize("inner", [b"[%s]", b'{"a":%s}'])
    @pytest.mark.parametrize("levels", [239, 254, 255, 1024, 1025, 10_000])
    def test_greater_depth_is_refused(self, inner: bytes, levels: int) -> None:
        assert refusal(entry(data=nested(inner, levels))).startswith("data: is n")

    def test_siblings_do_not_count_as_depth(self) -> None:
        assert read(entry(data='{"a":[' + "[]," * 5000 + "[]]}")).data == {"a": [[]] * 5001}


def nested(inner: bytes, levels: int) -> bytes:
    """Return JSON with this nesting depth, whose outermost level is an object."""
    head, tail = inner.split(b"%s")
    return b'{"a":' + head * (levels - 1) + b"1" + tail * (levels - 1) + b"}"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_ids_of_redis_are_parsed(ms: int, seq: int) -> None:
    assert read_id(f"{ms}-{seq}".encode()) == (ms, seq)
