"""Stream ids compare as in Redis, and invalid ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, StreamId

PARTS = st.integers(0, 2**63 - 1)
IDS = st.builds(StreamId, PARTS, PARTS)


@given(IDS)
def test_text_round_trip(one: StreamId) -> None:
    assert StreamId.parse(str(one)) == one


@given(IDS.filter(lambda one: one > ZERO))
def test_previous_id_is_adjacent(one: StreamId) -> None:
    before = one.previous()
    assert before < one
    assert before.seq == one.seq - 1 or (before.ms, before.seq) == (one.ms - 1, 2**63 - 1)


@given(st.builds(StreamId, st.integers(0, 2**63 - 2), PARTS | st.just(2**63 - 1)))
def test_next_id_is_adjacent(one: StreamId) -> None:
    after = one.next()
    assert after.previous() == one
    assert one < after
    assert StreamId.parse(str(after)) == after


def test_next_of_previous_is_the_same_id() -> None:
    """The id before the first of a millisecond has the maximum sequence number."""
    one = StreamId(1_763_856_000_000, 0)
    assert one.previous().next() == one


def test_comparison_is_numeric() -> None:
    assert StreamId.parse("9-10") > StreamId.parse("9-9")
    assert StreamId.parse("10-0") > StreamId.parse("9-99")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "-",
        "1-",
        "-1",
        "1-2-3",
        "a-b",
        "1-*",
        "$",
        ">",
        "+1-1",
        " 1-1",
        "1-1\n",
        "1.5-0",
        "\u0661-\u0661",
        "9223372036854775808-0",
        "1-99999999999999999999",
        "1" * 5000 + "-0",
    ],
)
def test_invalid_text_is_refused_with_a_short_message(text: str) -> None:
    with pytest.raises(ValueError, match="is no stream id") as caught:
        StreamId.parse(text)
    assert len(str(caught.value)) < 200
